//! The launcher behind a C interface, so that one Python process can time it beside other implementations: `beside.py`.
//!
//! ```c
//! const char *drawloom_error(void);                                  // why the last call on this thread failed
//! void *drawloom_open(const char *path);                             // an artifact's .json; NULL on failure
//! const char *drawloom_variants(void *artifact, const char *call);   // JSON; valid until the thread's next call
//! void *drawloom_prepare(void *artifact, const char *call);          // loads kernels; NULL on failure
//! int drawloom_launch(void *prepared, void *stream);                 // 0 on success
//! void drawloom_release(void *prepared);
//! void drawloom_close(void *artifact);
//! ```
//!
//! A call is JSON: see [`call::Description`]. Kernels run in the primary context of device 0, which is the one that
//! PyTorch uses, on the stream that is given. Nothing unwinds into the caller.

pub mod call;

use call::{Description, Opened, Prepared};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static ERROR: RefCell<CString> = RefCell::default();
    static RESULT: RefCell<CString> = RefCell::default();
}

/// Text for C: up to its first zero byte, should it have one.
fn c_text(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let end = error.nul_position();
        CString::new(&error.into_vec()[..end]).unwrap_or_default()
    })
}

/// Runs `work`; an error or a panic is kept for [`drawloom_error`].
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    });
    result
        .map_err(|error| ERROR.with_borrow_mut(|slot| *slot = c_text(error)))
        .ok()
}

/// The caller's text.
///
/// # Safety
/// It is null or ends with a zero byte, and stays as it is meanwhile.
unsafe fn text<'a>(of: *const c_char) -> Result<&'a str, String> {
    if of.is_null() {
        return Err("no text is given".to_owned());
    }
    // SAFETY: the caller promises it.
    unsafe { CStr::from_ptr(of) }
        .to_str()
        .map_err(|_| "the text is not UTF-8".to_owned())
}

/// # Safety
/// The text as for [`text`].
unsafe fn description(of: *const c_char) -> Result<Description, String> {
    // SAFETY: the caller promises it.
    let text = unsafe { text(of) }?;
    serde_json::from_str(text).map_err(|error| format!("the call cannot be read: {error}"))
}

/// # Safety
/// The pointer is null or of a live object of that type that nothing else uses meanwhile.
unsafe fn object<'a, T>(of: *mut T) -> Result<&'a mut T, String> {
    // SAFETY: the caller promises it.
    unsafe { of.as_mut() }.ok_or_else(|| "a null handle is given".to_owned())
}

/// Why the last call of this thread that failed did so. Valid until the next failure.
#[unsafe(no_mangle)]
pub extern "C" fn drawloom_error() -> *const c_char {
    ERROR.with_borrow(|error| error.as_ptr())
}

/// Opens the artifact whose manifest is at `path`; null on failure. It needs no driver.
///
/// # Safety
/// `path` is null or text that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drawloom_open(path: *const c_char) -> *mut Opened {
    guarded(|| {
        // SAFETY: the caller promises it.
        let path = unsafe { text(path) }?;
        Ok(Box::into_raw(Box::new(Opened::open(path)?)))
    })
    .unwrap_or(std::ptr::null_mut())
}

/// The variants of the instance that a call takes, as JSON rows ([`call::Listed`]); null on failure.
///
/// # Safety
/// `artifact` is null or came from [`drawloom_open`] and was not closed; `call` is null or ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drawloom_variants(artifact: *mut Opened, call: *const c_char) -> *const c_char {
    guarded(|| {
        // SAFETY: the caller promises it.
        let (artifact, call) = unsafe { (object(artifact)?, description(call)?) };
        let listed = artifact.variants(&call)?;
        let json = serde_json::to_string(&listed).map_err(|error| error.to_string())?;
        Ok(RESULT.with_borrow_mut(|slot| {
            *slot = c_text(json);
            slot.as_ptr()
        }))
    })
    .unwrap_or(std::ptr::null())
}

/// Loads what a call needs, and keeps its arguments; null on failure.
///
/// # Safety
/// As for [`drawloom_variants`]; and until the last launch of what is returned has finished, the tensors that the call
/// names are memory of the primary context of device 0, of their types and lengths, which nothing else writes, nor reads
/// where they are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drawloom_prepare(artifact: *mut Opened, call: *const c_char) -> *mut Prepared {
    guarded(|| {
        // SAFETY: the caller promises it.
        let (artifact, call) = unsafe { (object(artifact)?, description(call)?) };
        Ok(Box::into_raw(Box::new(artifact.prepare(&call)?)))
    })
    .unwrap_or(std::ptr::null_mut())
}

/// Launches on a `CUstream` of the primary context; 0 on success.
///
/// # Safety
/// `prepared` is null or came from [`drawloom_prepare`] and was not released; `stream` is a live stream of the primary
/// context of device 0, or null for the legacy default stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drawloom_launch(prepared: *mut Prepared, stream: *mut c_void) -> c_int {
    guarded(|| {
        // SAFETY: the caller promises it.
        unsafe { object(prepared)?.launch(stream) }
    })
    .map_or(1, |()| 0)
}

/// Forgets a prepared call.
///
/// # Safety
/// `prepared` is null or came from [`drawloom_prepare`], was not released, and its launches have finished.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drawloom_release(prepared: *mut Prepared) {
    if !prepared.is_null() {
        // SAFETY: it came from a box, and the caller promises that it is the last use.
        let object = unsafe { Box::from_raw(prepared) };
        guarded(|| {
            drop(object);
            Ok(())
        });
    }
}

/// Closes an artifact. Calls that were prepared from it stay.
///
/// # Safety
/// `artifact` is null or came from [`drawloom_open`] and was not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn drawloom_close(artifact: *mut Opened) {
    if !artifact.is_null() {
        // SAFETY: it came from a box, and the caller promises that it is the last use.
        let object = unsafe { Box::from_raw(artifact) };
        guarded(|| {
            drop(object);
            Ok(())
        });
    }
}

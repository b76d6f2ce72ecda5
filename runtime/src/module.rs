//! Modules in a context: loaded once, with the driver's log when that fails.
//!
//! The driver's `sys` layer is used directly: the safe wrapper for loading stands behind cudarc's `nvrtc` feature and
//! gives no log.

use crate::error::{Error, message};
use cudarc::driver::{CudaContext, sys};
use libloading::Library;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

/// The driver's library, if there is one. cudarc has it too, but not where a program links the driver, as those do that
/// use candle; the names are among those that cudarc tries.
pub(crate) fn driver() -> Option<&'static Library> {
    static DRIVER: OnceLock<Option<Library>> = OnceLock::new();
    let open = || {
        let names = [
            libloading::library_filename("cuda"),
            "libcuda.so.1".into(),
            libloading::library_filename("nvcuda"),
        ];
        // SAFETY: opening the driver's library runs its initialiser alone, as the first call of cudarc would.
        names.iter().find_map(|name| unsafe { Library::new(name) }.ok())
    };
    DRIVER.get_or_init(open).as_ref()
}

/// Whether a CUDA driver is there. Everything else of cudarc panics without one.
pub fn driver_is_present() -> bool {
    driver().is_some()
}

/// A context of device `ordinal`, without a panic where there is no driver.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::Driver`].
pub fn context(ordinal: usize) -> Result<Arc<CudaContext>, Error> {
    if !driver_is_present() {
        return Err(Error::NoDriver);
    }
    CudaContext::new(ordinal).map_err(Error::driver("opening the device"))
}

/// A kernel's handle. Lives as long as its [`Module`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function(pub(crate) sys::CUfunction);

// SAFETY: a function handle is an opaque name; the driver allows its use from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// A module loaded in a context.
pub(crate) struct Module {
    handle: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a module handle is an opaque name; the driver allows its use from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: the handle came from a successful load and is unloaded once; functions of it are held only beside an
        // `Arc` of this module.
        self.context
            .record_err(unsafe { cudarc::driver::result::module::unload(self.handle) });
    }
}

type Cache = HashMap<(usize, String), Weak<Module>>;

/// Loaded modules by context and code hash. A module keeps its context alive, so a context's address stays its own.
static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

impl Module {
    /// The module of this code in `context`, from the cache or loaded now. `code` is asked for only when it is needed.
    pub(crate) fn load(
        context: &Arc<CudaContext>,
        target: &str,
        sha256: &str,
        code: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Arc<Module>, Error> {
        let key = (context.cu_ctx() as usize, sha256.to_owned());
        // Held while loading, so that two threads do not compile one module twice.
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = cache.get(&key).and_then(Weak::upgrade) {
            return Ok(module);
        }
        let module = Arc::new(load_image(context, target, code()?)?);
        cache.retain(|_, module| module.strong_count() > 0);
        cache.insert(key, Arc::downgrade(&module));
        Ok(module)
    }

    /// A kernel, allowed `shared` bytes of dynamic shared memory.
    pub(crate) fn function(&self, name: &str, shared: u32) -> Result<Function, Error> {
        let symbol = CString::new(name).map_err(|_| Error::Launch {
            kernel: name.to_owned(),
            what: "the name",
            given: "one with a zero byte".to_owned(),
            expected: "a symbol".to_owned(),
        })?;
        self.context
            .bind_to_thread()
            .map_err(Error::driver("binding the context"))?;
        // SAFETY: the module is loaded.
        let function = unsafe { cudarc::driver::result::module::get_function(self.handle, symbol) }
            .map_err(Error::driver("finding a kernel in its module"))?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to the loaded module.
        unsafe { sys::cuFuncSetAttribute(function, attribute, i32::try_from(shared).unwrap_or(i32::MAX)) }
            .result()
            .map_err(Error::driver("allowing a kernel its shared memory"))?;
        Ok(Function(function))
    }
}

fn load_image(context: &Arc<CudaContext>, target: &str, mut image: Vec<u8>) -> Result<Module, Error> {
    const LOG_BYTES: usize = 16 << 10;
    context.bind_to_thread().map_err(Error::driver("binding the context"))?;
    // PTX is passed as text that ends with a zero byte; a cubin knows its length.
    image.push(0);
    let mut errors = vec![0u8; LOG_BYTES];
    let mut notes = vec![0u8; LOG_BYTES];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        sys::CUjit_option::CU_JIT_INFO_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values: [*mut c_void; 4] = [
        errors.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(LOG_BYTES),
        notes.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(LOG_BYTES),
    ];
    let mut handle = std::ptr::null_mut();
    // SAFETY: the image ends with a zero byte, its text was checked against its hash, the context is bound, and there are
    // as many values as options, each of the kind that its option wants; the buffers outlive the call.
    let loaded = unsafe {
        sys::cuModuleLoadDataEx(
            &mut handle,
            image.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    loaded.result().map_err(|error| {
        let log: Vec<String> = [&errors, &notes]
            .into_iter()
            .map(|log| text(log))
            .filter(|log| !log.is_empty())
            .collect();
        Error::Load {
            target: target.to_owned(),
            reason: message(error),
            log: log.join("\n"),
        }
    })?;
    Ok(Module {
        handle,
        context: context.clone(),
    })
}

/// Text up to the first zero byte.
fn text(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).trim().to_owned()
}

//! The numbers of a device that decide which variant runs and which module it can load.

use crate::error::Error;
use cudarc::driver::CudaContext;
use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use drawloom_lang::manifest::{DeviceFact, Manifest, Module};

/// A GPU, as numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Device {
    /// The driver's name for it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub sms: i64,
    /// Largest dynamic shared memory of a CTA, in bytes, after opting in.
    pub shared: u32,
    /// DRAM bandwidth in bytes per microsecond.
    pub bytes_per_microsecond: i64,
    /// SM clock in MHz.
    pub clock_mhz: i64,
    /// Dense 16-bit tensor operations per SM and clock through `mma.sync` with 32-bit accumulation; multiply and add
    /// count as two.
    pub tensor_per_clock: i64,
    /// The same through `wgmma`; that of `mma.sync` where there is none.
    pub wgmma_per_clock: i64,
}

impl Device {
    /// Asks the driver.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn of(context: &CudaContext) -> Result<Device, Error> {
        let attribute = |which| {
            context
                .attribute(which)
                .map_err(Error::driver("reading a device attribute"))
        };
        let name = context.name().map_err(Error::driver("reading the device's name"))?;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let memory_khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
        let bus_bits = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let clock_khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?;
        let capability = (major.unsigned_abs(), minor.unsigned_abs());
        Ok(Device {
            capability,
            sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?
                .max(1)
                .into(),
            shared: shared.unsigned_abs(),
            // Two transfers per memory clock; kHz times bytes is bytes per millisecond.
            bytes_per_microsecond: (2 * i64::from(memory_khz) * i64::from(bus_bits) / 8 / 1000).max(1),
            clock_mhz: (i64::from(clock_khz) / 1000).max(1),
            tensor_per_clock: tensor_per_clock(capability, &name),
            wgmma_per_clock: wgmma_per_clock(capability, &name),
            name,
        })
    }

    /// The fact that a formula asks for.
    pub fn fact(&self, fact: DeviceFact) -> i64 {
        match fact {
            DeviceFact::Sms => self.sms,
            DeviceFact::BytesPerMicrosecond => self.bytes_per_microsecond,
            DeviceFact::ClockMhz => self.clock_mhz,
            DeviceFact::TensorPerClock => self.tensor_per_clock,
            DeviceFact::WgmmaPerClock => self.wgmma_per_clock,
        }
    }

    /// Whether code for `target` (`sm_80`, `sm_90a`) in `form` (`ptx`, `cubin`) runs here.
    ///
    /// PTX for a plain target runs on that capability and every later one, a cubin on later minor versions of the same
    /// major one, and code of either form for an architecture-specific target (`a`) on exactly that capability.
    ///
    /// # Source
    /// CUDA C++ programming guide, "Compute capability: binary, PTX and architecture-specific compatibility".
    pub fn runs(&self, target: &str, form: &str) -> bool {
        let Some(digits) = target.strip_prefix("sm_") else {
            return false;
        };
        let (digits, exact) = digits
            .strip_suffix('a')
            .map_or((digits, false), |digits| (digits, true));
        let Ok(number) = digits.parse::<u32>() else {
            return false;
        };
        let wanted = (number / 10, number % 10);
        match form {
            _ if exact => self.capability == wanted,
            "ptx" => self.capability >= wanted,
            "cubin" => self.capability.0 == wanted.0 && self.capability.1 >= wanted.1,
            _ => false,
        }
    }

    /// Whether this is a device of just this instruction set: `sm_90a` and `sm_90` on capability 9.0.
    fn is(&self, target: &str) -> bool {
        let (major, minor) = self.capability;
        let digits = target.strip_prefix("sm_").map(|digits| digits.trim_end_matches('a'));
        digits.is_some_and(|digits| digits == format!("{major}{minor}"))
    }

    /// The module to load for module `index`: its cubin for just this device, if the artifact has one, else itself.
    pub fn code_of(&self, manifest: &Manifest, index: usize) -> usize {
        let made = |module: &Module| module.of == Some(index) && self.is(&module.target);
        manifest.modules.iter().position(made).unwrap_or(index)
    }

    /// Whether a module runs here.
    pub fn runs_module(&self, module: &Module) -> bool {
        self.runs(&module.target, &module.form)
    }
}

/// Tensor operations per SM and clock, which no driver attribute gives.
///
/// # Source
/// NVIDIA's architecture white papers (GA100, GA102, AD102, GH100; RTX Blackwell): dense FP16 with FP32 accumulation,
/// divided by SMs and boost clock. GeForce parts of GA10x and later accumulate in FP32 at half rate. `mma.sync` on
/// Hopper reaches 62.9 % of `wgmma`'s 4096 (Luo et al. 2024, arXiv:2402.13499, table of mma throughput).
fn tensor_per_clock(capability: (u32, u32), name: &str) -> i64 {
    match capability {
        (8, 0) => 2048,
        (9, _) => 2576,
        (10, _) => 2048,
        _ if name.contains("GeForce") => 512,
        _ => 1024,
    }
}

/// The rate of `wgmma`, which Hopper alone has.
///
/// # Source
/// NVIDIA's architecture white paper (GH100), as above.
fn wgmma_per_clock(capability: (u32, u32), name: &str) -> i64 {
    match capability {
        (9, 0) => 4096,
        _ => tensor_per_clock(capability, name),
    }
}

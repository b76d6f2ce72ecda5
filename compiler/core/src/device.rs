//! Devices: the numbers that turn counts into time.
//!
//! A [`Device`] holds published figures and microbenchmarks of a card, each with its source; but for one clock, nothing here is fitted to
//! our own kernels. Rates are per multiprocessor and clock, so that a clock can be replaced by the one observed.
//!
//! # Source
//! SMs, clocks, bandwidths, L2 and tensor rates: NVIDIA's architecture white papers (GA100, GA102, AD102, GH100) and
//! data sheets (L4, H200, B200). Shared memory, warps and CTAs per multiprocessor, special-function rate: CUDA C++
//! Programming Guide, compute capabilities and arithmetic throughput. `mma.sync` on Hopper, memory latency:
//! Luo et al. 2024, arXiv:2402.13499. Clocks of H100 and H200 under attention: `clock64` against `globaltimer` inside
//! kernels, 2026-11-23: 1740 to 1785 MHz in bursts, 1480 to 1600 MHz in long runs, at about 690 W
//! (`sustained_mhz` is the value in this range that fits the recorded sweep best).

use drawloom_lang::manifest::DeviceFact;

/// A card.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Device {
    /// Name for people.
    pub name: &'static str,
    /// Compute capability, times ten.
    pub capability: u32,
    /// Multiprocessors.
    pub sms: u32,
    /// Boost clock in MHz.
    pub clock_mhz: u32,
    /// Clock in MHz that a cool card keeps while its asynchronous products work as hard as attention lets them; that of
    /// boost where it was not measured.
    pub burst_mhz: u32,
    /// The same for long runs, in which the card's power is the limit.
    pub sustained_mhz: u32,
    /// DRAM bandwidth in bytes per microsecond (GB/s times 1000).
    pub bytes_per_microsecond: u32,
    /// L2 cache in bytes.
    pub l2_bytes: u64,
    /// Bytes per clock that the L2 delivers to all multiprocessors together.
    pub l2_per_clock: u32,
    /// Cycles from an access to DRAM until its data arrive.
    pub dram_latency: u32,
    /// Shared memory of a multiprocessor, bytes.
    pub shared_per_sm: u32,
    /// Shared memory that a CTA may have, bytes.
    pub shared_per_cta: u32,
    /// Warps resident on a multiprocessor.
    pub warps_per_sm: u32,
    /// CTAs resident on a multiprocessor.
    pub ctas_per_sm: u32,
    /// Registers of a multiprocessor.
    pub registers: u32,
    /// 16-bit tensor operations with f32 accumulation (multiply and add counted as two) per SM and clock, `mma.sync`.
    pub tensor_per_clock: u32,
    /// The same through `wgmma`; equal to `tensor_per_clock` where there is none.
    pub wgmma_per_clock: u32,
    /// Special functions per SM and clock.
    pub mufu_per_clock: u32,
    /// Warp instructions issued per SM and clock: one per scheduler.
    pub issue_per_clock: u32,
    /// Bytes of shared memory per SM and clock: 32 banks of 4 bytes.
    pub shared_per_clock: u32,
}

/// Bytes of a kibibyte.
const KIB: u32 = 1024;
/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;
/// Bytes per clock between one multiprocessor and the L2.
pub const L2_PORT: u32 = 64;

/// Shared memory that the system takes for itself from each CTA's share, in bytes.
pub const RESERVED_SHARED: u32 = KIB;

/// What all devices since Ampere have in common.
const COMMON: Device = Device {
    name: "",
    capability: 80,
    sms: 0,
    clock_mhz: 0,
    burst_mhz: 0,
    sustained_mhz: 0,
    bytes_per_microsecond: 0,
    l2_bytes: 0,
    l2_per_clock: 0,
    dram_latency: 0,
    shared_per_sm: 0,
    shared_per_cta: 0,
    warps_per_sm: 64,
    ctas_per_sm: 32,
    registers: 65536,
    tensor_per_clock: 0,
    wgmma_per_clock: 0,
    mufu_per_clock: 16,
    issue_per_clock: 4,
    shared_per_clock: 128,
};

/// GeForce RTX 3090 (GA102). Its tensor cores run at half rate with f32 accumulators.
pub const RTX_3090: Device = Device {
    name: "RTX 3090",
    capability: 86,
    sms: 82,
    clock_mhz: 1695,
    burst_mhz: 1695,
    sustained_mhz: 1695,
    bytes_per_microsecond: 936_000,
    l2_bytes: 6 * MIB,
    l2_per_clock: 82 * L2_PORT,
    dram_latency: 466,
    shared_per_sm: 100 * KIB,
    shared_per_cta: 99 * KIB,
    warps_per_sm: 48,
    ctas_per_sm: 16,
    tensor_per_clock: 512,
    wgmma_per_clock: 512,
    ..COMMON
};

/// GeForce RTX 4090 (AD102). Its tensor cores run at half rate with f32 accumulators.
pub const RTX_4090: Device = Device {
    name: "RTX 4090",
    capability: 89,
    sms: 128,
    clock_mhz: 2520,
    burst_mhz: 2520,
    sustained_mhz: 2520,
    bytes_per_microsecond: 1_008_000,
    l2_bytes: 72 * MIB,
    l2_per_clock: 128 * L2_PORT,
    dram_latency: 542,
    shared_per_sm: 100 * KIB,
    shared_per_cta: 99 * KIB,
    warps_per_sm: 48,
    ctas_per_sm: 24,
    tensor_per_clock: 512,
    wgmma_per_clock: 512,
    ..COMMON
};

/// L4 (AD104), at full rate.
pub const L4: Device = Device {
    name: "L4",
    capability: 89,
    sms: 58,
    clock_mhz: 2040,
    burst_mhz: 2040,
    sustained_mhz: 2040,
    bytes_per_microsecond: 300_000,
    l2_bytes: 48 * MIB,
    l2_per_clock: 58 * L2_PORT,
    dram_latency: 542,
    shared_per_sm: 100 * KIB,
    shared_per_cta: 99 * KIB,
    warps_per_sm: 48,
    ctas_per_sm: 24,
    tensor_per_clock: 1024,
    wgmma_per_clock: 1024,
    ..COMMON
};

/// A100 SXM, 80 GB.
pub const A100: Device = Device {
    name: "A100",
    capability: 80,
    sms: 108,
    clock_mhz: 1410,
    burst_mhz: 1410,
    sustained_mhz: 1410,
    bytes_per_microsecond: 2_039_000,
    l2_bytes: 40 * MIB,
    l2_per_clock: 5120,
    dram_latency: 466,
    shared_per_sm: 164 * KIB,
    shared_per_cta: 163 * KIB,
    tensor_per_clock: 2048,
    wgmma_per_clock: 2048,
    ..COMMON
};

/// H100 SXM. `mma.sync` reaches 62.9 % of the rate of `wgmma` on average.
pub const H100: Device = Device {
    name: "H100",
    capability: 90,
    sms: 132,
    clock_mhz: 1830,
    burst_mhz: 1755,
    sustained_mhz: 1560,
    bytes_per_microsecond: 3_352_000,
    l2_bytes: 50 * MIB,
    l2_per_clock: 132 * L2_PORT,
    dram_latency: 479,
    shared_per_sm: 228 * KIB,
    shared_per_cta: 227 * KIB,
    tensor_per_clock: 2576,
    wgmma_per_clock: 4096,
    ..COMMON
};

/// H200: an H100 with faster memory.
pub const H200: Device = Device {
    name: "H200",
    bytes_per_microsecond: 4_800_000,
    ..H100
};

/// B200. No figure for `mma.sync` is published; the rate of the A100 is assumed. `wgmma` it has none.
pub const B200: Device = Device {
    name: "B200",
    capability: 100,
    sms: 148,
    clock_mhz: 1850,
    burst_mhz: 1850,
    sustained_mhz: 1850,
    bytes_per_microsecond: 8_000_000,
    l2_bytes: 126 * MIB,
    l2_per_clock: 148 * L2_PORT,
    dram_latency: 479,
    shared_per_sm: 228 * KIB,
    shared_per_cta: 227 * KIB,
    tensor_per_clock: 2048,
    wgmma_per_clock: 2048,
    ..COMMON
};

/// All devices in the table.
pub const DEVICES: [&Device; 7] = [&RTX_3090, &RTX_4090, &L4, &A100, &H100, &H200, &B200];

impl Device {
    /// The device of this name, whatever the case and spacing: `h200`, `RTX 4090`, `rtx-4090`.
    pub fn by_name(name: &str) -> Option<&'static Device> {
        let plain = |s: &str| {
            s.chars()
                .filter(char::is_ascii_alphanumeric)
                .collect::<String>()
                .to_ascii_lowercase()
        };
        DEVICES.into_iter().find(|d| plain(d.name) == plain(name))
    }

    /// A number that selectors use.
    pub fn fact(&self, fact: DeviceFact) -> i64 {
        match fact {
            DeviceFact::Sms => self.sms.into(),
            DeviceFact::BytesPerMicrosecond => self.bytes_per_microsecond.into(),
            DeviceFact::ClockMhz => self.clock_mhz.into(),
            DeviceFact::TensorPerClock => self.tensor_per_clock.into(),
            DeviceFact::WgmmaPerClock => self.wgmma_per_clock.into(),
        }
    }

    /// Dense tensor operations per second through `mma.sync`, in units of 10^12.
    pub fn tensor_teraflops(&self) -> f64 {
        f64::from(self.sms) * f64::from(self.clock_mhz) * f64::from(self.tensor_per_clock) * 1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dense 16-bit tensor rate with f32 accumulation as the data sheets give it, 10^12 per second.
    const DATA_SHEET: [(&Device, f64); 5] = [
        (&RTX_3090, 71.0),
        (&RTX_4090, 165.2),
        (&L4, 121.0),
        (&A100, 312.0),
        (&H100, 989.4),
    ];

    #[test]
    fn rates_multiply_to_the_data_sheets() {
        for (d, teraflops) in DATA_SHEET {
            let ours = d.tensor_teraflops() * f64::from(d.wgmma_per_clock) / f64::from(d.tensor_per_clock);
            assert!(
                (ours / teraflops - 1.0).abs() < 0.01,
                "{}: {ours} against {teraflops}",
                d.name
            );
        }
    }

    #[test]
    fn a_cta_leaves_the_reserved_part() {
        for d in DEVICES {
            assert_eq!(d.shared_per_sm - d.shared_per_cta, RESERVED_SHARED, "{}", d.name);
            assert!(
                d.tensor_per_clock <= d.wgmma_per_clock && d.l2_per_clock <= d.sms * L2_PORT,
                "{}",
                d.name
            );
        }
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        assert_eq!(Device::by_name("rtx-4090").map(|d| d.name), Some("RTX 4090"));
        assert_eq!(Device::by_name("h200").map(|d| d.name), Some("H200"));
        assert!(Device::by_name("TPU").is_none());
    }
}

//! The roofline of an operator: what each variant reaches of what its device could, over its operations per byte.
//!
//! # Source
//! Williams, Waterman, Patterson 2009, Roofline: an insightful visual performance model, CACM 52(4).

use super::Explanation;
use crate::device::Device;
use serde::Serialize;
use std::fmt::Write;

/// The limits of a device.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Roofs {
    /// DRAM bandwidth in GB/s.
    pub gbytes_per_s: f64,
    /// Peak rates in TFLOP/s by the products that reach them, the highest first.
    pub tflops: Vec<(String, f64)>,
}

impl Roofs {
    /// Those of a device at its boost clock.
    pub fn of(device: &Device) -> Roofs {
        // Operations per clock, times MHz, are operations per microsecond.
        let rate = |per_clock: u32| f64::from(per_clock) * f64::from(device.sms) * f64::from(device.clock_mhz) / 1e6;
        let mut tflops = vec![("mma.sync".to_owned(), rate(device.tensor_per_clock))];
        if device.wgmma_per_clock > device.tensor_per_clock {
            tflops.insert(0, ("wgmma".to_owned(), rate(device.wgmma_per_clock)));
        }
        Roofs {
            gbytes_per_s: f64::from(device.bytes_per_microsecond) / 1000.0,
            tflops,
        }
    }

    /// The highest rate.
    fn peak(&self) -> f64 {
        self.tflops.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    /// What is possible at this many operations a byte, in TFLOP/s.
    fn at(&self, intensity: f64, peak: f64) -> f64 {
        (self.gbytes_per_s * intensity / 1000.0).min(peak)
    }
}

/// A variant under the roof.
struct Point {
    letter: char,
    name: String,
    chosen: bool,
    /// Tensor operations per byte at DRAM.
    intensity: f64,
    tflops: f64,
}

/// Columns and lines of the text form.
const COLUMNS: usize = 64;
const LINES: usize = 14;

/// Width and height of the SVG's plot.
const PLOT: (f64, f64) = (800.0, 300.0);

/// A picture's axes: logarithmic, from and to.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    /// Around all points and the corner of the roof.
    fn new(roofs: &Roofs, points: &[Point]) -> Axes {
        let corner = 1000.0 * roofs.peak() / roofs.gbytes_per_s.max(1e-9);
        let intensities = || points.iter().map(|p| p.intensity).chain([corner]);
        let least = points.iter().map(|p| p.tflops).fold(roofs.peak(), f64::min);
        Axes {
            x: (
                intensities().fold(f64::MAX, f64::min) / 8.0,
                intensities().fold(0.0, f64::max) * 4.0,
            ),
            y: ((least / 4.0).min(roofs.peak() / 32.0), roofs.peak() * 1.5),
        }
    }

    /// Where a point lies, as parts of the width from the left and of the height from below.
    fn place(&self, intensity: f64, tflops: f64) -> (f64, f64) {
        let part = |(from, to): (f64, f64), x: f64| ((x / from).ln() / (to / from).ln()).clamp(0.0, 1.0);
        (part(self.x, intensity), part(self.y, tflops))
    }

    /// The operations a byte at a part of the width.
    fn intensity(&self, part: f64) -> f64 {
        self.x.0 * (self.x.1 / self.x.0).powf(part)
    }

    /// Powers of ten on an axis.
    fn ticks((from, to): (f64, f64)) -> impl Iterator<Item = f64> {
        (from.log10().ceil() as i32..=to.log10().floor() as i32).map(|n| 10f64.powi(n))
    }
}

fn points(of: &Explanation) -> Vec<Point> {
    let letters = 'a'..='z';
    let points = of.variants.iter().zip(letters).filter_map(|(variant, letter)| {
        let ns = variant.ns()?;
        let flops: u64 = variant.kernels.iter().map(|k| k.flops).sum();
        let dram: u64 = variant.kernels.iter().map(|k| k.dram_bytes).sum();
        (flops > 0 && dram > 0 && ns > 0.0).then(|| Point {
            letter,
            name: format!("{} {}: {}", variant.target, variant.purpose, variant.schedule),
            chosen: variant.chosen,
            intensity: flops as f64 / dram as f64,
            tflops: flops as f64 / ns / 1000.0,
        })
    });
    points.collect()
}

impl Point {
    fn describe(&self, roofs: &Roofs) -> String {
        let roof = roofs.at(self.intensity, roofs.peak());
        format!(
            "{:.0} TFLOP/s at {:.0} operations a byte, {:.0} % of the roof",
            self.tflops,
            self.intensity,
            100.0 * self.tflops / roof.max(1e-9)
        )
    }
}

/// The roofline in characters; empty where nothing runs on the device.
pub fn text(of: &Explanation) -> String {
    let (roofs, points) = (&of.roofs, points(of));
    if points.is_empty() {
        return String::new();
    }
    let axes = Axes::new(roofs, &points);
    let mut cells = vec![vec![' '; COLUMNS]; LINES];
    let line = |part: f64| LINES - 1 - (part * (LINES - 1) as f64).round() as usize;
    for (n, (_, peak)) in roofs.tflops.iter().enumerate() {
        let columns = (0..COLUMNS).map(|column| {
            let roof = roofs.at(axes.intensity(column as f64 / (COLUMNS - 1) as f64), *peak);
            (column, roof, roof == *peak)
        });
        // The lower roofs differ where they are flat only.
        for (column, roof, flat) in columns.filter(|(.., flat)| n == 0 || *flat) {
            let mark = match (flat, n) {
                (false, _) => '╱',
                (true, 0) => '─',
                (true, _) => '┄',
            };
            cells[line(axes.place(axes.x.0, roof).1)][column] = mark;
        }
    }
    // The chosen one last, so that no other hides it.
    for point in points
        .iter()
        .filter(|p| !p.chosen)
        .chain(points.iter().filter(|p| p.chosen))
    {
        let (x, y) = axes.place(point.intensity, point.tflops);
        cells[line(y)][(x * (COLUMNS - 1) as f64).round() as usize] = point.letter;
    }
    let mut out = String::from("roofline: TFLOP/s of tensor operations over operations a byte at DRAM\n");
    let mut labels = vec![String::new(); LINES];
    for tick in Axes::ticks(axes.y) {
        labels[line(axes.place(axes.x.0, tick).1)] = format!("{tick}");
    }
    for (cells, label) in cells.iter().zip(labels) {
        let cells: String = cells.iter().collect();
        let _ = writeln!(out, "{label:>6} │{}", cells.trim_end());
    }
    let mut below = vec![' '; COLUMNS + 8];
    for tick in Axes::ticks(axes.x) {
        let at = (axes.place(tick, axes.y.0).0 * (COLUMNS - 1) as f64).round() as usize;
        for (n, digit) in format!("{tick}").chars().enumerate() {
            if let Some(cell) = below.get_mut(at + n) {
                *cell = digit;
            }
        }
    }
    let below: String = below.iter().collect();
    let _ = writeln!(out, "       └{}\n        {}", "─".repeat(COLUMNS), below.trim_end());
    let peaks: Vec<String> = roofs
        .tflops
        .iter()
        .map(|(name, x)| format!("{name} {x:.0} TFLOP/s"))
        .collect();
    let _ = writeln!(
        out,
        "        roofs: {}, DRAM {:.0} GB/s",
        peaks.join(", "),
        roofs.gbytes_per_s
    );
    for point in &points {
        let chosen = if point.chosen { ", chosen" } else { "" };
        let _ = writeln!(
            out,
            "     {}  {}\n        {}{chosen}",
            point.letter,
            point.name,
            point.describe(roofs)
        );
    }
    out
}

/// The roofline as SVG.
pub fn svg(of: &Explanation) -> String {
    let (roofs, points) = (&of.roofs, points(of));
    let axes = Axes::new(roofs, &points);
    let ((width, height), margin) = (PLOT, 56.0);
    let at = |intensity: f64, tflops: f64| {
        let (x, y) = axes.place(intensity, tflops);
        (margin + x * width, 24.0 + (1.0 - y) * height)
    };
    let (full, tall) = (margin + width + 16.0, height + 80.0 + 18.0 * points.len() as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {full} {tall}\" width=\"{full}\" height=\"{tall}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>{} ({}) on {}</title>\n",
        of.spec, of.binding, of.device
    );
    let _ = writeln!(out, "<rect width=\"{full}\" height=\"{tall}\" fill=\"#fff\"/>");
    for tick in Axes::ticks(axes.x) {
        let (x, y) = at(tick, axes.y.0);
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {y:.1}V24\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            y + 16.0
        );
    }
    for tick in Axes::ticks(axes.y) {
        let (x, y) = at(axes.x.0, tick);
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {y:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            margin + width,
            x - 6.0,
            y + 4.0
        );
    }
    for (name, peak) in &roofs.tflops {
        let corner = 1000.0 * peak / roofs.gbytes_per_s.max(1e-9);
        let ((a, b), (c, d)) = (at(axes.x.0, roofs.at(axes.x.0, *peak)), at(corner, *peak));
        let (e, f) = at(axes.x.1, *peak);
        let _ = writeln!(
            out,
            "<path d=\"M{a:.1} {b:.1}L{c:.1} {d:.1}H{e:.1}\" fill=\"none\" stroke=\"#2f5d8a\" stroke-width=\"2\"/>\
             <text x=\"{e:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name} {peak:.0} TFLOP/s</text>",
            f - 5.0
        );
    }
    let below = height + 60.0;
    let _ = writeln!(
        out,
        "<text x=\"{margin}\" y=\"16\">TFLOP/s</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">operations a byte at \
         DRAM ({:.0} GB/s)</text>",
        margin + width,
        below - 4.0,
        roofs.gbytes_per_s
    );
    for (n, point) in points.iter().enumerate() {
        let (x, y) = at(point.intensity, point.tflops);
        let fill = if point.chosen { "#d9822b" } else { "#8fb0d0" };
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{fill}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <text x=\"{margin}\" y=\"{:.1}\">{}  {}, {}</text>",
            x + 7.0,
            y + 4.0,
            point.letter,
            below + 18.0 * (n + 1) as f64,
            point.letter,
            point.name,
            point.describe(roofs)
        );
    }
    out.push_str("</svg>\n");
    out
}

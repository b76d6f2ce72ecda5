//! The documentation of a module: the spec's own, its mask, its arguments, what it costs.

use drawloom_lang::manifest::Manifest;
use drawloom_lang::mask_picture;
use drawloom_lang::spec::{AxisId, AxisSize, ElemType, LseBase, OutputValue, Spec};

/// Points along each side of the mask's picture.
const PICTURE: usize = 64;

/// `f16[b, h, i, d]`, as the spec writes it.
pub fn shape(spec: &Spec, ty: ElemType, axes: &[AxisId]) -> String {
    let ty = match ty {
        ElemType::Fixed(dtype) => dtype.to_string(),
        ElemType::Set(set) => spec.types[set.index()].name.clone(),
    };
    let axes: Vec<&str> = axes.iter().map(|axis| spec.axes[axis.index()].name.as_str()).collect();
    format!("{ty}[{}]", axes.join(", "))
}

pub fn output_doc(value: OutputValue) -> &'static str {
    match value {
        OutputValue::Stage(_) => "Output",
        OutputValue::Lse {
            base: LseBase::Nats, ..
        } => "Output: natural log-sum-exp of the visible scores",
        OutputValue::Lse {
            base: LseBase::Bits, ..
        } => "Output: base-2 log-sum-exp of the visible scores",
    }
}

/// The module's documentation: the spec's own, its mask, its arguments, what it costs.
pub fn docs(spec: &Spec, manifest: Option<&Manifest>) -> String {
    let mut text = spec.doc.clone();
    text.push_str("\n\n# Mask\nThe first 64 queries downwards, the first 64 keys to the right.\n```text\n");
    text.push_str(mask_picture(spec, PICTURE, PICTURE).trim_end());
    text.push_str("\n```\n\n# Arguments\n| argument | shape |\n|---|---|\n");
    for input in &spec.inputs {
        text.push_str(&format!(
            "| `{}` | `{}` |\n",
            input.name,
            shape(spec, input.ty, &input.axes)
        ));
    }
    for scalar in &spec.scalars {
        text.push_str(&format!("| `{}` | `{}`, a scalar |\n", scalar.name, scalar.ty));
    }
    for output in &spec.outputs {
        text.push_str(&format!(
            "| `{}` (output) | `{}` |\n",
            output.name,
            shape(spec, output.ty, &output.axes)
        ));
    }
    for axis in &spec.axes {
        match &axis.size {
            AxisSize::Runtime => {}
            AxisSize::OneOf(sizes) => text.push_str(&format!("\nAxis `{}` is one of {sizes:?}.\n", axis.name)),
            AxisSize::Grouped { of, ratios } => text.push_str(&format!(
                "\nAxis `{}` is `{}` divided by one of {ratios:?}.\n",
                axis.name,
                spec.axes[of.index()].name
            )),
        }
    }
    text.push_str("\n# Cost\n");
    match manifest {
        Some(manifest) => cost(manifest, &mut text),
        None => text.push_str("Not compiled.\n"),
    }
    text
}

/// The predicted cost of each compiled choice, by its variants.
fn cost(manifest: &Manifest, text: &mut String) {
    text.push_str("| compiled for | target | schedule | at | issued bytes | lower bound | limit |\n|---|---|---|---|---|---|---|\n");
    for instance in &manifest.instances {
        let types = instance.binding.types.iter().map(ToString::to_string);
        let sizes = instance.binding.sizes.iter().flatten().map(ToString::to_string);
        let choice: Vec<String> = types.chain(sizes).collect();
        for variant in &instance.variants {
            let report = &variant.report;
            let at: Vec<String> = report
                .at
                .iter()
                .map(|(axis, size)| format!("{axis} = {size}"))
                .collect();
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} |\n",
                choice.join(", "),
                variant.target,
                variant.name,
                at.join(", "),
                report.issued_bytes,
                report.bound_bytes,
                report.limit
            ));
        }
    }
}

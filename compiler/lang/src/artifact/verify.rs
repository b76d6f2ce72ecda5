//! Whether a manifest agrees with itself, its payload and its spec, and stays within what a launcher holds on its stack.

use super::{
    ArtifactError, MAX_CODE_BYTES, MAX_LAUNCHES, MAX_MAP_RANK, MAX_MAP_ROWS, MAX_PARAMS, MAX_TENSOR_MAPS, MAX_WORKSPACE,
};
use crate::manifest::{Arg, Instance, Manifest};
use crate::spec::{Binding, ElemType, Spec};

/// What does not hold, in words.
pub(super) fn inconsistent(
    what: impl Into<String>,
    given: impl ToString,
    expected: impl Into<String>,
) -> ArtifactError {
    ArtifactError::Inconsistent {
        what: what.into(),
        given: given.to_string(),
        expected: expected.into(),
    }
}

/// Modules lie one after the other and fill the payload.
pub(super) fn verify_modules(manifest: &Manifest, payload: u64) -> Result<(), ArtifactError> {
    let mut end = 0u64;
    for (index, module) in manifest.modules.iter().enumerate() {
        if module.offset != end {
            return Err(inconsistent(
                format!("the offset of module {index}"),
                module.offset,
                end.to_string(),
            ));
        }
        end = end
            .checked_add(module.length)
            .filter(|end| *end <= payload)
            .ok_or_else(|| {
                inconsistent(
                    format!("the length of module {index}"),
                    module.length,
                    format!("at most {}", payload - end),
                )
            })?;
        if !matches!(module.form.as_str(), "ptx" | "cubin") {
            return Err(inconsistent(
                format!("the form of module {index}"),
                &module.form,
                "`ptx` or `cubin`",
            ));
        }
        if let Some(of) = module.of {
            let from = manifest.modules.get(of).map(|from| from.form.as_str());
            if module.form != "cubin" || from != Some("ptx") {
                return Err(inconsistent(
                    format!("what module {index} was assembled from"),
                    of,
                    "a cubin's PTX",
                ));
            }
        }
        if module.code_length > MAX_CODE_BYTES {
            let most = format!("at most {MAX_CODE_BYTES}");
            return Err(inconsistent(
                format!("the code length of module {index}"),
                module.code_length,
                most,
            ));
        }
    }
    if end != payload {
        Err(inconsistent("the payload's length", payload, end.to_string()))
    } else {
        Ok(())
    }
}

/// Indices are in range and counts within what a launcher holds on its stack.
pub(super) fn verify_instance(manifest: &Manifest, spec: &Spec, instance: &Instance) -> Result<(), ArtifactError> {
    for variant in &instance.variants {
        let name = &variant.name;
        if variant.launches.len() > MAX_LAUNCHES {
            let most = format!("at most {MAX_LAUNCHES}");
            return Err(inconsistent(
                format!("the number of launches of `{name}`"),
                variant.launches.len(),
                most,
            ));
        }
        if variant.workspace.len() > MAX_WORKSPACE {
            let most = format!("at most {MAX_WORKSPACE}");
            return Err(inconsistent(
                format!("the number of buffers of `{name}`"),
                variant.workspace.len(),
                most,
            ));
        }
        let params: usize = variant.launches.iter().map(|launch| launch.args.len()).sum();
        if params > MAX_PARAMS {
            let most = format!("at most {MAX_PARAMS}");
            return Err(inconsistent(
                format!("the number of parameters of `{name}`"),
                params,
                most,
            ));
        }
        let args = variant.launches.iter().flat_map(|launch| &launch.args);
        let maps = args.filter(|arg| matches!(arg, Arg::TensorMap { .. })).count();
        if maps > MAX_TENSOR_MAPS {
            let most = format!("at most {MAX_TENSOR_MAPS}");
            return Err(inconsistent(
                format!("the number of tensor maps of `{name}`"),
                maps,
                most,
            ));
        }
        for launch in &variant.launches {
            let of = format!("`{}` of `{name}`", launch.kernel);
            let module = manifest.modules.get(launch.module);
            if module.is_none_or(|module| module.target != variant.target) {
                let expected = format!("a module for {}", variant.target);
                return Err(inconsistent(format!("the module of {of}"), launch.module, expected));
            }
            if !(1..=1024).contains(&launch.threads) {
                return Err(inconsistent(
                    format!("the number of threads of {of}"),
                    launch.threads,
                    "1 to 1024",
                ));
            }
            if launch.shared > variant.requires.shared {
                let most = format!("at most the required {}", variant.requires.shared);
                return Err(inconsistent(format!("the shared memory of {of}"), launch.shared, most));
            }
            for arg in &launch.args {
                if let Arg::Workspace(index) = arg
                    && *index >= variant.workspace.len()
                {
                    let below = format!("below {}", variant.workspace.len());
                    return Err(inconsistent(format!("a workspace number of {of}"), index, below));
                }
                verify_map(spec, &instance.binding, arg, &of)?;
            }
        }
    }
    Ok(())
}

/// A tensor map is one that the copy engine can have: of a tensor of the spec, with a box of whole swizzled panels.
fn verify_map(spec: &Spec, binding: &Binding, arg: &Arg, of: &str) -> Result<(), ArtifactError> {
    let Arg::TensorMap {
        tensor,
        row_axis,
        rows,
        cols,
        panel_bytes,
    } = arg
    else {
        return Ok(());
    };
    let wrong = |what: &str, given: &dyn ToString, expected: String| {
        Err(inconsistent(
            format!("{what} of the tensor map of `{tensor}` in {of}"),
            given.to_string(),
            expected,
        ))
    };
    let inputs = spec
        .inputs
        .iter()
        .map(|input| (&input.name, input.ty, input.axes.len()));
    let outputs = spec.outputs.iter().map(|out| (&out.name, out.ty, out.axes.len()));
    let Some((_, ty, rank)) = inputs.chain(outputs).find(|(name, ..)| *name == tensor) else {
        return wrong("the name", tensor, "a tensor of the spec".to_owned());
    };
    if !(2..=MAX_MAP_RANK).contains(&rank) {
        return wrong("the number of axes", &rank, format!("2 to {MAX_MAP_RANK}"));
    }
    if *row_axis >= rank - 1 {
        return wrong("the row axis", row_axis, format!("below {}", rank - 1));
    }
    if !(1..=MAX_MAP_ROWS).contains(rows) {
        return wrong("the number of rows", rows, format!("1 to {MAX_MAP_ROWS}"));
    }
    if !matches!(panel_bytes, 32 | 64 | 128) {
        return wrong("the panel's width", panel_bytes, "32, 64 or 128".to_owned());
    }
    let dtype = match ty {
        ElemType::Fixed(dtype) => Some(dtype),
        ElemType::Set(set) => binding.types.get(set.index()).copied(),
    };
    let Some(dtype) = dtype else {
        return wrong("the element type", &"none", "one of the binding".to_owned());
    };
    if cols.checked_mul(dtype.bytes()) != Some(*panel_bytes) {
        let expected = format!("{}, the {dtype} of a panel", panel_bytes / dtype.bytes());
        return wrong("the number of columns", cols, expected);
    }
    Ok(())
}

//! The arguments of a call in the spec's order, given by position (what `attn!` writes) or by name.
//!
//! Fixed arrays, so that a launch allocates nothing.

use crate::element::Scalar;
use crate::error::{Error, list};
use crate::operator::{MAX_TENSORS, Operator};
use crate::tensor::{Input, Output};

/// Most scalars of an operator.
pub const MAX_SCALARS: usize = 32;

/// Arguments in the spec's order.
pub struct Arguments<'r> {
    pub(crate) inputs: [Option<&'r dyn Input>; MAX_TENSORS],
    pub(crate) outputs: [Option<&'r mut dyn Output>; MAX_TENSORS],
    pub(crate) scalars: [Scalar; MAX_SCALARS],
}

impl<'r> Arguments<'r> {
    fn none() -> Arguments<'r> {
        Arguments {
            inputs: [None; MAX_TENSORS],
            outputs: [const { None }; MAX_TENSORS],
            scalars: [Scalar::I32(0); MAX_SCALARS],
        }
    }

    /// Arguments in the spec's order.
    ///
    /// # Errors
    /// [`Error::MissingArgument`] or [`Error::Limit`] if there are too few or too many.
    pub fn positional(
        operator: &Operator,
        inputs: &[&'r dyn Input],
        scalars: &[Scalar],
        outputs: impl IntoIterator<Item = &'r mut dyn Output>,
    ) -> Result<Arguments<'r>, Error> {
        let spec = operator.spec();
        let mut arguments = Arguments::none();
        for (slot, input) in arguments.inputs.iter_mut().zip(inputs) {
            *slot = Some(*input);
        }
        for (slot, scalar) in arguments.scalars.iter_mut().zip(scalars) {
            *slot = *scalar;
        }
        let mut count = 0;
        for output in outputs {
            if let Some(slot) = arguments.outputs.get_mut(count) {
                *slot = Some(output);
            }
            count += 1;
        }
        let counted = |what, given: usize, wanted: usize, missing: &dyn Fn(usize) -> String| {
            if given < wanted {
                Err(Error::MissingArgument {
                    argument: missing(given),
                })
            } else if given > wanted {
                Err(Error::Limit {
                    name: spec.name.clone(),
                    what,
                    given,
                    limit: wanted,
                })
            } else {
                Ok(())
            }
        };
        counted("inputs", inputs.len(), spec.inputs.len(), &|index| {
            spec.inputs[index].name.clone()
        })?;
        counted("scalars", scalars.len(), spec.scalars.len(), &|index| {
            spec.scalars[index].name.clone()
        })?;
        counted("outputs", count, spec.outputs.len(), &|index| {
            spec.outputs[index].name.clone()
        })?;
        arguments.check_scalars(operator)?;
        Ok(arguments)
    }

    /// Arguments by name, in any order.
    ///
    /// # Errors
    /// [`Error::UnknownArgument`], [`Error::DuplicateArgument`] or [`Error::MissingArgument`].
    pub fn named(
        operator: &Operator,
        inputs: &[(&str, &'r dyn Input)],
        scalars: &[(&str, Scalar)],
        outputs: &'r mut [(&str, &mut dyn Output)],
    ) -> Result<Arguments<'r>, Error> {
        let spec = operator.spec();
        let mut arguments = Arguments::none();
        let duplicate = |name: &str| Error::DuplicateArgument {
            argument: name.to_owned(),
        };
        for (name, input) in inputs {
            let names = || spec.inputs.iter().map(|input| input.name.as_str());
            let index = find("input", name, names)?;
            if arguments.inputs[index].replace(*input).is_some() {
                return Err(duplicate(name));
            }
        }
        for (name, output) in outputs {
            let names = || spec.outputs.iter().map(|output| output.name.as_str());
            let index = find("output", name, names)?;
            if arguments.outputs[index].replace(&mut **output).is_some() {
                return Err(duplicate(name));
            }
        }
        let mut given = [false; MAX_SCALARS];
        for (name, scalar) in scalars {
            let names = || spec.scalars.iter().map(|scalar| scalar.name.as_str());
            let index = find("scalar", name, names)?;
            if std::mem::replace(&mut given[index], true) {
                return Err(duplicate(name));
            }
            arguments.scalars[index] = *scalar;
        }
        let missing = |name: &str| {
            Err(Error::MissingArgument {
                argument: name.to_owned(),
            })
        };
        if let Some((input, _)) = spec
            .inputs
            .iter()
            .zip(&arguments.inputs)
            .find(|(_, given)| given.is_none())
        {
            return missing(&input.name);
        }
        if let Some((scalar, _)) = spec.scalars.iter().zip(given).find(|(_, given)| !given) {
            return missing(&scalar.name);
        }
        if let Some((output, _)) = spec
            .outputs
            .iter()
            .zip(&arguments.outputs)
            .find(|(_, given)| given.is_none())
        {
            return missing(&output.name);
        }
        arguments.check_scalars(operator)?;
        Ok(arguments)
    }

    fn check_scalars(&self, operator: &Operator) -> Result<(), Error> {
        for (scalar, value) in operator.spec().scalars.iter().zip(self.scalars) {
            if scalar.ty != value.dtype() {
                let expected = scalar.ty.to_string();
                return Err(Error::Dtype {
                    argument: scalar.name.clone(),
                    expected,
                    given: value.dtype(),
                });
            }
        }
        Ok(())
    }
}

fn find<'s, I: Iterator<Item = &'s str>>(
    kind: &'static str,
    name: &str,
    names: impl Fn() -> I,
) -> Result<usize, Error> {
    let unknown = || Error::UnknownArgument {
        kind,
        argument: name.to_owned(),
        known: list(names()),
    };
    names().position(|known| known == name).ok_or_else(unknown)
}

//! An operator as the launcher sees it: a checked spec, its arguments in one order, and what a manifest says about it.

use crate::arguments::Arguments;
use crate::cpu;
use crate::error::{Error, list};
use crate::select::Sizes;
use crate::tensor::MAX_RANK;
use drawloom_lang::artifact::{ArtifactError, formula_sizes};
use drawloom_lang::manifest::{Arg, Formula, Instance, Manifest, Variant};
use drawloom_lang::spec::{AxisId, AxisSize, Dtype, ElemType, Spec};

/// Most axes of an operator.
pub const MAX_AXES: usize = 32;
/// Most tensors, inputs and outputs together.
pub const MAX_TENSORS: usize = 32;

/// A tensor argument's declaration: inputs first, then outputs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Declared<'s> {
    /// Name.
    pub name: &'s str,
    /// Element type.
    pub ty: ElemType,
    /// Axes in the caller's order.
    pub axes: &'s [AxisId],
}

/// An operator within the launcher's fixed limits.
#[derive(Clone, PartialEq, Debug)]
pub struct Operator {
    spec: Spec,
}

impl Operator {
    /// Checks the limits.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub fn new(spec: Spec) -> Result<Operator, Error> {
        let limit = |what, given: usize, limit: usize| {
            if given > limit {
                Err(Error::Limit {
                    name: spec.name.clone(),
                    what,
                    given,
                    limit,
                })
            } else {
                Ok(())
            }
        };
        limit("axes", spec.axes.len(), MAX_AXES)?;
        limit("tensors", spec.inputs.len() + spec.outputs.len(), MAX_TENSORS)?;
        limit("scalars", spec.scalars.len(), crate::arguments::MAX_SCALARS)?;
        let ranks = spec.inputs.iter().map(|input| input.axes.len());
        let rank = ranks
            .chain(spec.outputs.iter().map(|output| output.axes.len()))
            .max()
            .unwrap_or(0);
        limit("axes of one tensor", rank, MAX_RANK)?;
        Ok(Operator { spec })
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Tensors: inputs first.
    pub fn tensors(&self) -> usize {
        self.spec.inputs.len() + self.spec.outputs.len()
    }

    /// Tensor `index`, inputs first.
    pub fn tensor(&self, index: usize) -> Declared<'_> {
        let inputs = self.spec.inputs.len();
        if index < inputs {
            let input = &self.spec.inputs[index];
            Declared {
                name: &input.name,
                ty: input.ty,
                axes: &input.axes,
            }
        } else {
            let output = &self.spec.outputs[index - inputs];
            Declared {
                name: &output.name,
                ty: output.ty,
                axes: &output.axes,
            }
        }
    }

    /// The number of the tensor of this name.
    pub fn find_tensor(&self, name: &str) -> Option<usize> {
        (0..self.tensors()).find(|&index| self.tensor(index).name == name)
    }

    /// The dtype of an element type when `types` are chosen for the type sets.
    pub fn dtype(&self, ty: ElemType, types: &[Dtype]) -> Dtype {
        match ty {
            ElemType::Fixed(dtype) => dtype,
            ElemType::Set(set) => types[set.index()],
        }
    }

    /// The members of the type sets that the dtypes of these tensors choose, where `given` yields a tensor's dtype.
    ///
    /// # Errors
    /// [`Error::Dtype`] where a tensor's dtype is not a member.
    pub fn infer_types(&self, given: impl Fn(usize) -> Dtype) -> Result<Vec<Dtype>, Error> {
        let mut types = Vec::with_capacity(self.spec.types.len());
        for (set, declared) in self.spec.types.iter().enumerate() {
            let user = (0..self.tensors())
                .find(|&tensor| matches!(self.tensor(tensor).ty, ElemType::Set(id) if id.index() == set));
            let dtype = match user {
                Some(tensor) => given(tensor),
                None => declared.members.first().copied().unwrap_or(Dtype::F32),
            };
            if let Some(tensor) = user
                && !declared.members.contains(&dtype)
            {
                return Err(Error::Dtype {
                    argument: self.tensor(tensor).name.to_owned(),
                    expected: list(declared.members.iter().map(|member| member.to_string())),
                    given: dtype,
                });
            }
            types.push(dtype);
        }
        Ok(types)
    }

    /// Runs the CPU form on host memory. The types of the type sets are those of the arguments.
    ///
    /// # Errors
    /// Whatever is wrong with the call.
    pub fn cpu(&self, arguments: Arguments<'_>) -> Result<(), Error> {
        cpu::run_inferred(self, arguments)
    }

    /// Checks that a manifest speaks of this operator: bindings, names in formulas and parameters.
    ///
    /// # Errors
    /// [`ArtifactError::Inconsistent`].
    pub fn check_manifest(&self, manifest: &Manifest) -> Result<(), ArtifactError> {
        if manifest.name != self.spec.name {
            return Err(inconsistent(
                "the name",
                &manifest.name,
                format!("`{}`, the spec's", self.spec.name),
            ));
        }
        for instance in &manifest.instances {
            self.check_binding(instance)?;
            for variant in &instance.variants {
                self.check_variant(variant)?;
            }
        }
        Ok(())
    }

    fn check_binding(&self, instance: &Instance) -> Result<(), ArtifactError> {
        let binding = &instance.binding;
        let sets = self.spec.types.iter().map(|set| &set.members);
        if binding.types.len() != self.spec.types.len()
            || !sets
                .zip(&binding.types)
                .all(|(members, chosen)| members.contains(chosen))
        {
            let given = format!("{:?}", binding.types);
            return Err(inconsistent(
                "the types of an instance",
                &given,
                "one member of each type set".to_owned(),
            ));
        }
        let fits = self
            .spec
            .axes
            .iter()
            .zip(&binding.sizes)
            .all(|(axis, size)| match (&axis.size, size) {
                (AxisSize::OneOf(sizes), Some(size)) => sizes.contains(size),
                (AxisSize::Runtime | AxisSize::Grouped { .. }, None) => true,
                (AxisSize::OneOf(_), None) | (AxisSize::Runtime | AxisSize::Grouped { .. }, Some(_)) => false,
            });
        if binding.sizes.len() != self.spec.axes.len() || !fits {
            let given = format!("{:?}", binding.sizes);
            return Err(inconsistent(
                "the sizes of an instance",
                &given,
                "a compiled size of each axis".to_owned(),
            ));
        }
        Ok(())
    }

    fn check_variant(&self, variant: &Variant) -> Result<(), ArtifactError> {
        let formulas = [&variant.splits, &variant.requires.when, &variant.time];
        let mut unknown = None;
        let mut visit = |formula: &Formula| {
            formula_sizes(formula, &mut |name| {
                if !self.spec.axes.iter().any(|axis| axis.name == name) {
                    unknown = Some(name.to_owned());
                }
            });
        };
        formulas.into_iter().chain(&variant.workspace).for_each(&mut visit);
        for launch in &variant.launches {
            visit(&launch.grid);
            for arg in &launch.args {
                match arg {
                    Arg::Size(formula) | Arg::Long(formula) => visit(formula),
                    Arg::Pointer(_) | Arg::Stride(..) | Arg::Workspace(_) | Arg::Scalar(_) | Arg::TensorMap { .. } => {}
                }
            }
        }
        if let Some(name) = unknown {
            return Err(inconsistent(
                "a size in a formula",
                &name,
                "an axis of the spec".to_owned(),
            ));
        }
        for arg in variant.launches.iter().flat_map(|launch| &launch.args) {
            match arg {
                Arg::Pointer(name) => {
                    if self.find_tensor(name).is_none() {
                        return Err(inconsistent(
                            "a pointer parameter",
                            name,
                            "a tensor of the spec".to_owned(),
                        ));
                    }
                }
                Arg::Stride(name, axis) => {
                    let rank = self.find_tensor(name).map(|index| self.tensor(index).axes.len());
                    if rank.is_none_or(|rank| *axis >= rank) {
                        let given = format!("{axis} of {name}");
                        return Err(inconsistent(
                            "a stride parameter",
                            &given,
                            "an axis of a tensor".to_owned(),
                        ));
                    }
                }
                Arg::Scalar(name) => {
                    if !self.spec.scalars.iter().any(|scalar| scalar.name == *name) {
                        return Err(inconsistent(
                            "a scalar parameter",
                            name,
                            "a scalar of the spec".to_owned(),
                        ));
                    }
                }
                // A tensor map was checked against the spec when the manifest was opened.
                Arg::Workspace(_) | Arg::Size(_) | Arg::Long(_) | Arg::TensorMap { .. } => {}
            }
        }
        Ok(())
    }

    /// The error for types or sizes that no instance has.
    pub(crate) fn not_compiled(&self, manifest: &Manifest, types: &[Dtype], sizes: &Sizes) -> Error {
        let same_types = || {
            manifest
                .instances
                .iter()
                .filter(|instance| instance.binding.types == types)
        };
        for (index, axis) in self.spec.axes.iter().enumerate() {
            let mut compiled: Vec<u32> = same_types()
                .filter_map(|instance| instance.binding.sizes[index])
                .collect();
            compiled.sort_unstable();
            compiled.dedup();
            if !compiled.is_empty() && !compiled.iter().any(|size| i64::from(*size) == sizes[index]) {
                return Error::SizeNotCompiled {
                    axis: axis.name.clone(),
                    given: usize::try_from(sizes[index]).unwrap_or(0),
                    compiled: list(compiled),
                };
            }
        }
        let names = |types: &[Dtype]| types.iter().map(|ty| ty.to_string()).collect::<Vec<_>>().join(", ");
        let mut compiled: Vec<String> = manifest
            .instances
            .iter()
            .map(|instance| format!("({})", names(&instance.binding.types)))
            .collect();
        compiled.dedup();
        Error::TypesNotCompiled {
            name: self.spec.name.clone(),
            given: names(types),
            compiled: list(compiled),
        }
    }
}

fn inconsistent(what: &str, given: &str, expected: String) -> ArtifactError {
    ArtifactError::Inconsistent {
        what: what.to_owned(),
        given: given.to_owned(),
        expected,
    }
}

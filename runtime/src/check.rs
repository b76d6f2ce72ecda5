//! The checks of a call, the same for every form: ranks, dtypes, shapes by axis name, strides, bounds, places, overlaps.
//!
//! Pure: views in, sizes by axis out. Nothing is allocated unless a check fails.

use crate::element::size_of;
use crate::error::{Error, list};
use crate::operator::Operator;
use crate::select::{Call, Offered, Sizes};
use crate::tensor::{Place, View, extent};
use drawloom_lang::spec::{AxisSize, Dtype};

/// Largest size of an axis: kernels index with `i32` and round sizes up to whole tiles.
pub const MAX_SIZE: usize = 1 << 30;

/// Where the tensors of a call must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Host memory.
    Host,
    /// Device memory of this context.
    Device {
        /// `CUcontext`.
        context: usize,
        /// Ordinal.
        ordinal: usize,
    },
}

/// Checks the tensors of a call, inputs first, and yields the size of every axis.
///
/// # Errors
/// The first thing that does not hold.
pub fn check(operator: &Operator, types: &[Dtype], wanted: Wanted, tensors: &[View]) -> Result<Sizes, Error> {
    if let Some(missing) = (tensors.len()..operator.tensors()).next() {
        return Err(Error::MissingArgument {
            argument: operator.tensor(missing).name.to_owned(),
        });
    }
    let tensors = &tensors[..operator.tensors()];
    for (index, view) in tensors.iter().enumerate() {
        let declared = operator.tensor(index);
        let argument = || declared.name.to_owned();
        if view.rank != declared.axes.len() {
            return Err(Error::Rank {
                argument: argument(),
                expected: declared.axes.len(),
                given: view.rank,
            });
        }
        let expected = operator.dtype(declared.ty, types);
        if view.dtype != expected {
            return Err(Error::Dtype {
                argument: argument(),
                expected: expected.to_string(),
                given: view.dtype,
            });
        }
        check_place(declared.name, view.place, wanted)?;
    }
    let sizes = check_shapes(operator, tensors)?;
    for (index, view) in tensors.iter().enumerate() {
        check_layout(operator, index, view)?;
    }
    check_overlaps(operator, tensors)?;
    Ok(sizes)
}

/// Whether memory at `place` is where it is wanted.
pub(crate) fn check_place(argument: &str, place: Place, wanted: Wanted) -> Result<(), Error> {
    let misplaced = |expected| {
        Err(Error::Place {
            argument: argument.to_owned(),
            expected,
            given: place.name(),
        })
    };
    match (wanted, place) {
        (Wanted::Host, Place::Host) | (Wanted::Device { .. }, Place::Raw) => Ok(()),
        (Wanted::Host, Place::Device { .. } | Place::Raw) => misplaced("host"),
        (Wanted::Device { .. }, Place::Host) => misplaced("device"),
        (
            Wanted::Device { context, ordinal },
            Place::Device {
                context: given_context,
                ordinal: given,
            },
        ) => {
            if context == given_context {
                Ok(())
            } else {
                Err(Error::Context {
                    argument: argument.to_owned(),
                    expected: ordinal,
                    given,
                })
            }
        }
    }
}

/// Agreement of shapes by axis name; compiled sizes; group ratios.
fn check_shapes(operator: &Operator, tensors: &[View]) -> Result<Sizes, Error> {
    let spec = operator.spec();
    let mut sizes: Sizes = [0; crate::operator::MAX_AXES];
    let mut from = [usize::MAX; crate::operator::MAX_AXES];
    for (index, view) in tensors.iter().enumerate() {
        let declared = operator.tensor(index);
        for (position, axis) in declared.axes.iter().enumerate() {
            let given = view.shape[position];
            let name = || spec.axes[axis.index()].name.clone();
            if given > MAX_SIZE {
                return Err(Error::TooLarge {
                    axis: name(),
                    given,
                    limit: MAX_SIZE,
                });
            }
            let first = from[axis.index()];
            let expected = sizes[axis.index()];
            if first == usize::MAX {
                from[axis.index()] = index;
                // At most MAX_SIZE, as checked.
                sizes[axis.index()] = given as i64;
            } else if expected != given as i64 {
                return Err(Error::Shape {
                    argument: declared.name.to_owned(),
                    axis: name(),
                    given,
                    expected: expected as usize,
                    other: operator.tensor(first).name.to_owned(),
                });
            }
        }
    }
    for (index, axis) in spec.axes.iter().enumerate() {
        let size = sizes[index];
        match &axis.size {
            AxisSize::Runtime => {}
            AxisSize::OneOf(compiled) => {
                // An axis of no tensor has its first size.
                if from[index] == usize::MAX {
                    sizes[index] = compiled.first().copied().unwrap_or(0).into();
                } else if !compiled.iter().any(|compiled| i64::from(*compiled) == size) {
                    let given = size as usize;
                    return Err(Error::SizeNotCompiled {
                        axis: axis.name.clone(),
                        given,
                        compiled: list(compiled),
                    });
                }
            }
            AxisSize::Grouped { of, ratios } => {
                let whole = sizes[of.index()];
                if whole == 0 && size == 0 {
                    continue;
                }
                if !ratios
                    .iter()
                    .any(|ratio| size.checked_mul(i64::from(*ratio)) == Some(whole))
                {
                    return Err(Error::Ratio {
                        axis: axis.name.clone(),
                        size: size as usize,
                        of: spec.axes[of.index()].name.clone(),
                        of_size: whole as usize,
                        ratios: list(ratios),
                    });
                }
            }
        }
    }
    Ok(sizes)
}

/// Contiguity of the last axis, bounds, and for outputs that no two elements share memory.
fn check_layout(operator: &Operator, index: usize, view: &View) -> Result<(), Error> {
    let declared = operator.tensor(index);
    let shape = &view.shape[..view.rank];
    let strides = &view.strides[..view.rank];
    let axis_name = |position: usize| operator.spec().axes[declared.axes[position].index()].name.clone();
    let reached = extent(shape, strides);
    if reached.is_none_or(|reached| reached > view.len) {
        let needed = reached.map_or_else(|| "more than any memory's".to_owned(), |needed| needed.to_string());
        return Err(Error::OutOfBounds {
            argument: declared.name.to_owned(),
            needed,
            given: view.len,
        });
    }
    if !view.address.is_multiple_of(size_of(view.dtype)) {
        let (address, align) = (view.address, size_of(view.dtype));
        return Err(Error::Misaligned {
            argument: declared.name.to_owned(),
            address,
            align,
        });
    }
    if let (Some(&size), Some(&stride)) = (shape.last(), strides.last())
        && size > 1
        && stride != 1
    {
        let axis = axis_name(view.rank - 1);
        return Err(Error::LastStride {
            argument: declared.name.to_owned(),
            axis,
            given: stride,
        });
    }
    if index >= operator.spec().inputs.len() && !shape.contains(&0) {
        // In the order of the strides, each must step over all that the smaller ones reach.
        let mut order = [0usize; crate::tensor::MAX_RANK];
        let order = &mut order[..view.rank];
        order
            .iter_mut()
            .enumerate()
            .for_each(|(position, slot)| *slot = position);
        order.sort_unstable_by_key(|&position| strides[position]);
        let mut reached = 1usize;
        for &position in order.iter().filter(|&&position| shape[position] > 1) {
            if strides[position] < reached {
                return Err(Error::SelfOverlap {
                    output: declared.name.to_owned(),
                    axis: axis_name(position),
                    given: strides[position],
                    expected: reached,
                });
            }
            reached += (shape[position] - 1) * strides[position];
        }
    }
    Ok(())
}

/// No output shares memory with another argument.
fn check_overlaps(operator: &Operator, tensors: &[View]) -> Result<(), Error> {
    let range = |view: &View| (view.address, view.address.saturating_add(view.extent()));
    for output in operator.spec().inputs.len()..tensors.len() {
        let (start, end) = range(&tensors[output]);
        for (other, view) in tensors.iter().enumerate() {
            let (other_start, other_end) = range(view);
            let empty = start == end || other_start == other_end;
            if other != output && !empty && start < other_end && other_start < end {
                return Err(Error::Overlap {
                    output: operator.tensor(output).name.to_owned(),
                    other: operator.tensor(other).name.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// The alignment that the tensors of feature rows offer: of their addresses and of every stride but the last, along
/// axes that are stepped along at all. A feature row is a last axis of compiled size, which kernels read as vectors;
/// other tensors (log-sum-exps, tables by position) are read by element.
pub fn offered<'a>(operator: &'a Operator, tensors: &'a [View]) -> Offered<'a> {
    let mut bits = 4096u64;
    for (index, view) in tensors.iter().enumerate() {
        let last = operator.tensor(index).axes.last();
        let rows = last.is_some_and(|axis| matches!(operator.spec().axes[axis.index()].size, AxisSize::OneOf(_)));
        if !rows || view.shape[..view.rank].contains(&0) {
            continue;
        }
        bits |= view.address;
        for position in 0..view.rank.saturating_sub(1) {
            if view.shape[position] > 1 {
                bits |= (view.strides[position] as u64).wrapping_mul(size_of(view.dtype));
            }
        }
    }
    Offered {
        align: 1 << bits.trailing_zeros(),
        call: Some(Call { operator, tensors }),
    }
}

//! Addresses and descriptors, computed for every lane by LLVM's constant folding and compared with their definitions.

use drawloom_kernel::ir::*;
use drawloom_kernel::target::target;
use inkwell::context::Context;
use inkwell::values::AnyValue;

use crate::build::{Build, Ptr};
use crate::emitter::{Arg, Emitter, Team};
use crate::shared::MatrixLanes;
use crate::wgmma::Along;

/// A kernel with one bf16 buffer of 2 slots.
fn kernel(layout: BufferLayout, rows: u32, cols: u32) -> Kernel {
    let buffer = Buffer {
        name: "b".into(),
        dtype: Dtype::Bf16,
        slots: 2,
        rows,
        cols,
        layout,
        alias: None,
    };
    let role = Role {
        name: "main".into(),
        warps: 4,
        registers: None,
        body: Block::default(),
    };
    Kernel {
        name: "k".into(),
        target: "sm_80".into(),
        params: vec![],
        buffers: vec![buffer],
        mbarriers: vec![],
        roles: vec![role],
        min_ctas: 1,
        types: vec![],
    }
}

/// Runs `test` for a thread, in an emitter for which the thread's number is a constant and shared memory begins at 0.
fn at_thread(kernel: &Kernel, thread: u32, test: impl FnOnce(&mut Emitter<'_, '_>)) {
    let ctx = Context::create();
    let module = ctx.create_module("m");
    let function = module.add_function("k", ctx.void_type().fn_type(&[], false), None);
    let b = Build::new(&ctx, module, function);
    b.at_end(b.block("entry"));
    let tensor = Arg::Tensor {
        base: b.ptr(1).const_null(),
        strides: vec![b.c64(1000), b.c64(1)],
        dtype: Dtype::Bf16,
        access: Access::In,
    };
    let (zero, lane) = (b.c32(0), b.c32(i64::from(thread % 32)));
    let team = Team {
        warps: kernel.warps(),
        warp: b.c32(i64::from(thread / 32)),
        thread: b.c32(i64::from(thread)),
        first_thread: 0,
    };
    let target = target(&kernel.target).expect("a known target");
    test(&mut Emitter::new(
        b,
        kernel,
        target,
        (vec![tensor], vec![]),
        zero,
        lane,
        team,
    ));
}

/// The number of a constant address.
fn number(p: Ptr<'_>) -> u32 {
    // Nested `getelementptr (i8, ptr …, i64 B)` around `inttoptr (i32 A to ptr …)` or, for A = 0, `null`.
    let text = p.print_to_string().to_string();
    let numbers = |mark: &str| -> u32 {
        let starts = text.split(mark).skip(1);
        starts
            .filter_map(|s| s.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok())
            .sum()
    };
    numbers("inttoptr (i32 ") + numbers(", i64 ")
}

/// Byte of the element in row `row`, column `col` of slot `slot`.
fn expected(k: &Kernel, slot: u32, row: u32, col: u32) -> u32 {
    let b = &k.buffers[0];
    slot * b.slot_bytes() + b.place(row, 2 * col)
}

#[test]
fn matrix_loads_address_the_swizzled_rows() {
    let swizzled = [16, 32, 64, 72, 96, 128, 176, 256].map(|cols| (BufferLayout::Swizzled, cols));
    let panels = [16, 32, 64, 96, 128, 176, 256].map(|cols| (BufferLayout::Panels, cols));
    for (layout, cols) in swizzled.into_iter().chain(panels) {
        let k = kernel(layout, 64, cols);
        for lane in 0..32 {
            at_thread(&k, lane, |e| {
                let view = SharedView {
                    buf: BufId(0),
                    slot: None,
                    row: None,
                    col: 0,
                    rows: 64,
                    cols,
                };
                for first in [0, 8] {
                    let mut w = e
                        .window(&SharedView {
                            col: first,
                            ..view.clone()
                        })
                        .expect("a window");
                    for row in [0, 16, 40] {
                        for chunk in 0..(cols - first) / 8 - 1 {
                            let col = first + 8 * chunk;
                            let p = e.place(&mut w, MatrixLanes::RowsFirst, row, chunk);
                            assert_eq!(number(p), expected(&k, 0, row + lane % 16, col + lane / 16 * 8));
                            let p = e.place(&mut w, MatrixLanes::ChunksFirst, row, chunk);
                            let (r, c) = (lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8);
                            assert_eq!(number(p), expected(&k, 0, row + r, col + c));
                            let p = e.place(&mut w, MatrixLanes::Pair16, row, chunk);
                            assert_eq!(number(p), expected(&k, 0, row + lane / 4, col + lane % 4 * 2));
                        }
                    }
                }
            });
        }
    }
}

#[test]
fn copies_deal_chunks_to_threads() {
    let swizzled = [(64, 16), (96, 16), (128, 16), (256, 16), (64, 4), (40, 16), (128, 2)];
    let panels = [(64, 16), (96, 16), (128, 16), (176, 16), (128, 4)];
    let swizzled = swizzled.map(|(cols, bytes)| (BufferLayout::Swizzled, cols, bytes));
    let panels = panels.map(|(cols, bytes)| (BufferLayout::Panels, cols, bytes));
    for (layout, cols, bytes) in swizzled.into_iter().chain(panels) {
        let mut k = kernel(layout, 48, cols);
        let int = Frag::scalar(Dtype::I32);
        let (first_row, row_limit, head, slot) = (k.new_val(int), k.new_val(int), k.new_val(int), k.new_val(int));
        for thread in [0, 1, 31, 32, 77, 127] {
            at_thread(&k, thread, |e| {
                for (v, n) in [(first_row, 16), (row_limit, 50), (head, 0), (slot, 1)] {
                    let n = e.b.c32(n).into();
                    e.define(v, vec![n]).expect("a scalar");
                }
                // Both ways of telling which rows exist.
                if thread % 2 == 1 {
                    e.learn(first_row, &Op::ConstI(16));
                }
                let view = SharedView {
                    buf: BufId(0),
                    slot: Some(slot),
                    row: None,
                    col: 0,
                    rows: 48,
                    cols,
                };
                let at = vec![RowIndex::Row];
                let tile = GlobalTile {
                    tensor: ParamId(0),
                    at,
                    col: 8,
                    rows: 48,
                    cols,
                    first_row,
                    row_limit,
                };
                let cut = e.cut(&tile, &view, bytes).expect("the tile is cut");
                let places = e.accesses(cut, &tile, &view).expect("the accesses");
                let (per_row, per_chunk) = (cols * 2 / bytes, bytes / 2);
                assert_eq!(places.len() as u32, (48 * per_row).div_ceil(128));
                for (i, p) in places.iter().enumerate() {
                    let chunk = i as u32 * 128 + thread;
                    let truth = |v: crate::build::Int<'_>| v.get_zero_extended_constant() == Some(1);
                    assert_eq!(p.mine.is_none_or(truth), chunk < 48 * per_row);
                    if chunk >= 48 * per_row {
                        continue;
                    }
                    let (row, col) = (chunk / per_row, chunk % per_row * per_chunk);
                    assert_eq!(truth(p.exists), 16 + row < 50);
                    assert_eq!(
                        number(p.shared),
                        expected(&k, 1, row, col),
                        "{cols} {bytes} {thread} {i}"
                    );
                    assert_eq!(number(p.global), (16 + row) * 2000 + (8 + col) * 2);
                }
            });
        }
    }
}

#[test]
fn descriptors_name_panels() {
    // Columns of a buffer of 2 slots of 128 rows; the high word; then in units of 16 bytes: a slot, a panel, a step of 16
    // rows, and the steps of 16 columns in a panel. The first line is what the hand-written kernels of FlashAttention-3
    // have.
    for (cols, high, slot_units, panel, down, across) in [
        (128, 0x4000_0040u64, 2048, 1024, 128, 4),
        (64, 0x4000_0040, 1024, 1024, 128, 4),
        (96, 0x8000_0020, 1536, 512, 64, 2),
        (80, 0xc000_0010, 1280, 256, 32, 1),
    ] {
        let mut k = kernel(BufferLayout::Panels, 128, cols);
        let (slot, row) = (k.new_val(Frag::scalar(Dtype::I32)), k.new_val(Frag::scalar(Dtype::I32)));
        for thread in [0, 40, 127] {
            at_thread(&k, thread, |e| {
                let own_row = 64 + 16 * i64::from(thread / 32);
                for (v, n) in [(slot, 1), (row, own_row)] {
                    let n = e.b.c32(n).into();
                    e.define(v, vec![n]).expect("a scalar");
                }
                let mut view = SharedView {
                    buf: BufId(0),
                    slot: Some(slot),
                    row: None,
                    col: 0,
                    rows: 128,
                    cols,
                };
                let mut found = |view: &SharedView, along, left| -> Vec<u64> {
                    let all = e.descriptors(view, along, left).expect("the descriptors");
                    all.iter()
                        .map(|d| d.get_zero_extended_constant().expect("a constant"))
                        .collect()
                };
                let of = |low: u64| (high << 32) | low;
                let inner = |first: u64| -> Vec<u64> {
                    let steps = (0..u64::from(cols) / 16).map(|s| s / across * panel + s % across * 2);
                    steps.map(|s| of((1 << 16) | (first + s))).collect()
                };
                assert_eq!(found(&view, Along::Inner, false), inner(slot_units));
                let columns: Vec<u64> = (0..8).map(|s| of((panel << 16) | (slot_units + s * down))).collect();
                assert_eq!(found(&view, Along::Columns, false), columns);
                // All warps of a group name the rows of the first.
                view.row = Some(row);
                view.rows = 16;
                assert_eq!(found(&view, Along::Inner, true), inner(slot_units + 4 * down));
            });
        }
    }
}

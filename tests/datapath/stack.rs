//! The stack that the programs need on old kernels. Before 6.8 Linux rounds each frame up to 32 bytes (to 16 since,
//! with the JIT) and takes no chain of calls above 512: there a program is refused that newer kernels take.

use std::collections::{BTreeMap, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use crate::rig::object;

/// `MAX_BPF_STACK`.
const MOST: u32 = 512;
/// What a frame is rounded up to (`check_max_stack_depth`, kernel/bpf/verifier.c of Linux 6.1).
const FRAME: u32 = 32;
/// The frame pointer.
const FP: u8 = 10;

/// Instruction classes, operations and sources (linux/bpf_common.h, linux/bpf.h).
const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const MOVE_FROM: u8 = 0xbf;
const ADD_CONSTANT: u8 = 0x07;
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;

/// A function of a linked program.
#[derive(Default)]
struct Function {
    /// Bytes of its frame.
    frame: u32,
    /// Where the functions begin that it calls.
    calls: HashSet<usize>,
}

/// The functions of a program, by where they begin.
fn functions(code: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let target = |(at, insn): (usize, &bpf_insn)| {
        let calls = insn.code == CALL && insn.src_reg() == PSEUDO_CALL;
        calls.then(|| at.strict_add_signed(insn.imm as isize + 1))
    };
    let starts = code.iter().enumerate().filter_map(target).chain([0]);
    let mut functions: BTreeMap<usize, Function> =
        starts.map(|start| (start, Function::default())).collect();
    // Which registers hold the frame pointer.
    let mut holds = [false; 11];
    let mut function = 0;
    for (at, insn) in code.iter().enumerate() {
        if functions.contains_key(&at) {
            function = at;
            holds = [false; 11];
        }
        let Some(of) = functions.get_mut(&function) else {
            continue;
        };
        let (dst, src) = (insn.dst_reg(), insn.src_reg());
        let mut touches = |offset: i32| of.frame = of.frame.max(offset.unsigned_abs());
        match insn.code & CLASS {
            LDX if src == FP => touches(insn.off.into()),
            ST | STX if dst == FP => touches(insn.off.into()),
            _ if insn.code == ADD_CONSTANT && holds[usize::from(dst)] => touches(insn.imm),
            _ => {}
        }
        of.calls.extend(target((at, insn)));
        if !matches!(insn.code & CLASS, ST | STX) {
            holds[usize::from(dst)] = insn.code == MOVE_FROM && src == FP;
        }
    }
    functions
}

/// The most that a function and all that it calls need. There is no recursion: the verifier refuses it.
fn depth(functions: &BTreeMap<usize, Function>, start: usize) -> u32 {
    let Some(function) = functions.get(&start) else {
        return 0;
    };
    let deepest = function
        .calls
        .iter()
        .map(|call| depth(functions, *call))
        .max();
    function.frame.max(1).next_multiple_of(FRAME) + deepest.unwrap_or(0)
}

#[test]
fn no_program_needs_more_stack_than_linux_6_1_has() {
    let bytes = std::fs::read(object()).expect("run `cargo xtask build --ebpf`");
    let mut object = Object::parse(&bytes).unwrap();
    let sections = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object.relocate_calls(&sections).unwrap();
    assert!(object.programs.len() > 10);
    for (name, program) in &object.programs {
        let code = &object.functions[&program.function_key()].instructions;
        let functions = functions(code);
        let most = depth(&functions, 0);
        println!("{name}: {most} bytes in {} functions", functions.len());
        assert!(most <= MOST, "{name} needs {most} bytes of stack");
        // Something has been measured.
        assert!(name != "from_pod" || (most > 300 && functions.len() > 20));
    }
}

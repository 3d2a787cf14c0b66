//! The same filter in fewer instructions: system calls by ranges of their numbers.
//!
//! libseccomp compares with each number that a profile names, some 400 for each architecture. The kernel checks,
//! translates and compiles all of that whenever a process gets the filter, which is a twentieth of a start. But most
//! numbers are treated as their neighbours are. So the program is run, for each architecture, with one number of each
//! stretch in which no comparison can tell two apart; what has come out is put into a tree of ranges. Where it looks at
//! arguments its own instructions follow, as they were.

use super::instruction::{
    IF_ANY_BIT, IF_EQUAL, IF_GREATER, IF_NOT_LESS, JUMP, LOAD, OFFSET_ARCH, OFFSET_NR, RETURN, plain,
};
use libc::sock_filter;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Returns a program that decides as `program` does; none if that would be no shorter, or `program` is not of the kind
/// that libseccomp writes.
pub(super) fn compact(program: &[sock_filter]) -> Option<Vec<sock_filter>> {
    let written = written(program, &Seen::by(program)?)?;
    (written.len() < program.len()).then_some(written)
}

/// Writes the program anew, however long it gets.
fn written(program: &[sock_filter], seen: &Seen) -> Option<Vec<sock_filter>> {
    // One that the program does not know stands for all others.
    let other = (0..).find(|arch| !seen.archs.contains(arch))?;
    let decisions = |arch| decisions(program, arch, &seen.numbers);
    let known = seen.archs.iter().map(|arch| Some((*arch, decisions(*arch)?))).collect::<Option<Vec<_>>>()?;
    let others = decisions(other)?;

    let leaves = known.iter().map(|(_, ranges)| ranges).chain([&others]).flatten().map(|range| range.leaf);
    let kept = Kept::from(program, leaves)?;
    let blocks = known.iter().map(|(arch, ranges)| Some((*arch, block(ranges)?))).collect::<Option<Vec<_>>>()?;
    write(&blocks, &block(&others)?, &kept)
}

/// What a call comes to once its architecture and number are known.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Leaf {
    /// This verdict.
    Return(u32),
    /// What follows in the program from here, which begins with loading an argument.
    Arguments(usize),
}

/// The numbers from one on, up to the next range.
#[derive(Clone, Copy, Debug)]
struct Range {
    from: u32,
    leaf: Leaf,
}

/// What a program tells apart before it looks at arguments.
#[derive(Default)]
struct Seen {
    /// Architectures, in the order in which it knows them.
    archs: Vec<u32>,
    /// Where a stretch of numbers begins.
    numbers: BTreeSet<u32>,
}

/// What is in the accumulator.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Holds {
    Arch,
    Number,
}

impl Seen {
    /// Follows all ways through the program; none if it does what cannot be told by number.
    fn by(program: &[sock_filter]) -> Option<Self> {
        let mut seen = Self { numbers: BTreeSet::from([0]), ..Self::default() };
        let mut visited = BTreeSet::new();
        let mut ways = VecDeque::from([(0, None)]);
        while let Some((at, holds)) = ways.pop_front() {
            if !visited.insert((at, holds)) {
                continue;
            }
            let step = program.get(at)?;
            match (step.code, holds) {
                (LOAD, _) if step.k == OFFSET_ARCH => ways.push_back((at + 1, Some(Holds::Arch))),
                (LOAD, _) if step.k == OFFSET_NR => ways.push_back((at + 1, Some(Holds::Number))),
                (LOAD | RETURN, _) => {}
                (JUMP, _) => ways.push_back((jump(at, step.k), holds)),
                (IF_EQUAL, Some(Holds::Arch)) => {
                    if !seen.archs.contains(&step.k) {
                        seen.archs.push(step.k);
                    }
                    ways.extend(branches(at, step).map(|to| (to, holds)));
                }
                (_, Some(Holds::Number)) => {
                    seen.numbers.extend(edges(step)?);
                    ways.extend(branches(at, step).map(|to| (to, holds)));
                }
                _ => return None,
            }
        }
        Some(seen)
    }
}

/// Returns the numbers at which the outcome of a comparison may change.
fn edges(step: &sock_filter) -> Option<Vec<u32>> {
    /// With a lower bit the stretches would be too many.
    const LOWEST_BIT: u32 = 1 << 28;
    let next = step.k.checked_add(1);
    Some(match step.code {
        IF_EQUAL => [Some(step.k), next].into_iter().flatten().collect(),
        IF_GREATER => next.into_iter().collect(),
        IF_NOT_LESS => vec![step.k],
        IF_ANY_BIT if step.k.is_power_of_two() && step.k >= LOWEST_BIT => {
            (0..=u32::MAX / step.k).map(|times| times * step.k).collect()
        }
        _ => return None,
    })
}

/// Returns what all numbers come to for an architecture, neighbours of a kind as one.
fn decisions(program: &[sock_filter], arch: u32, numbers: &BTreeSet<u32>) -> Option<Vec<Range>> {
    let mut ranges: Vec<Range> = Vec::new();
    for from in numbers.iter().copied() {
        let leaf = run(program, arch, from)?;
        if ranges.last().is_none_or(|range| range.leaf != leaf) {
            ranges.push(Range { from, leaf });
        }
    }
    Some(ranges)
}

/// Runs the program until it looks at an argument, or returns.
fn run(program: &[sock_filter], arch: u32, number: u32) -> Option<Leaf> {
    let (mut at, mut held) = (0, 0);
    loop {
        let step = program.get(at)?;
        let branch = |holds: bool| jump(at, if holds { step.jt } else { step.jf });
        at = match step.code {
            RETURN => return Some(Leaf::Return(step.k)),
            JUMP => jump(at, step.k),
            LOAD if step.k == OFFSET_ARCH || step.k == OFFSET_NR => {
                held = if step.k == OFFSET_ARCH { arch } else { number };
                at + 1
            }
            LOAD => return Some(Leaf::Arguments(at)),
            IF_EQUAL => branch(held == step.k),
            IF_GREATER => branch(held > step.k),
            IF_NOT_LESS => branch(held >= step.k),
            IF_ANY_BIT => branch(held & step.k != 0),
            _ => return None,
        };
    }
}

/// Returns where a jump leads to that stands at a place.
fn jump(at: usize, over: impl Into<u32>) -> usize {
    at + 1 + over.into() as usize
}

fn branches(at: usize, step: &sock_filter) -> impl Iterator<Item = usize> + use<> {
    [step.jt, step.jf].into_iter().map(move |over| jump(at, over))
}

/// The instructions that look at arguments, in their order: jumps still lead forward and get no longer, and what an
/// instruction without a jump went on to still follows it. The last one ends the program, as the kernel demands.
struct Kept {
    instructions: Vec<sock_filter>,
    /// Where each came from, and its place among them.
    places: BTreeMap<usize, usize>,
}

impl Kept {
    /// Finds what can be reached from the leaves, and moves it together.
    fn from(program: &[sock_filter], leaves: impl Iterator<Item = Leaf>) -> Option<Self> {
        let mut found = BTreeSet::new();
        let mut ways: Vec<usize> = leaves
            .filter_map(|leaf| match leaf {
                Leaf::Arguments(at) => Some(at),
                Leaf::Return(_) => None,
            })
            .collect();
        while let Some(at) = ways.pop() {
            if found.insert(at) {
                ways.extend(successors(at, program.get(at)?));
            }
        }
        let places: BTreeMap<usize, usize> = found.into_iter().zip(0..).collect();
        let moved = |(from, to): (&usize, &usize)| {
            let step = program.get(*from)?;
            let over = |target: usize| places.get(&target)?.checked_sub(to + 1);
            let mut step = *step;
            if step.code == JUMP {
                step.k = over(jump(*from, step.k))?.try_into().ok()?;
            } else if is_branch(step.code) {
                let [holds, fails] = [step.jt, step.jf].map(|by| over(jump(*from, by)));
                (step.jt, step.jf) = (holds?.try_into().ok()?, fails?.try_into().ok()?);
            }
            Some(step)
        };
        Some(Self { instructions: places.iter().map(moved).collect::<Option<_>>()?, places })
    }
}

fn successors(at: usize, step: &sock_filter) -> Vec<usize> {
    match step.code {
        JUMP => vec![jump(at, step.k)],
        code if is_branch(code) => branches(at, step).collect(),
        code if is_return(code) => Vec::new(),
        _ => vec![at + 1],
    }
}

fn is_branch(code: u16) -> bool {
    code & CLASS == libc::BPF_JMP as u16 && code != JUMP
}

fn is_return(code: u16) -> bool {
    code & CLASS == libc::BPF_RET as u16
}

/// The bits of an instruction that say of which class it is (BPF_CLASS, linux/bpf_common.h).
const CLASS: u16 = 0x07;

/// A tree that finds a number's range, and the leaves behind it, each of which stands there once.
struct Block {
    tree: Vec<sock_filter>,
    leaves: Vec<Leaf>,
}

impl Block {
    fn len(&self) -> usize {
        self.tree.len() + self.leaves.len()
    }
}

/// Where a comparison leads to.
#[derive(Clone, Copy)]
enum To {
    Comparison(usize),
    Leaf(usize),
}

/// A comparison with the first number of a range.
#[derive(Clone, Copy)]
struct Comparison {
    code: u16,
    number: u32,
    holds: To,
    fails: To,
}

/// Makes the block of an architecture; none if a jump in it would be too long.
fn block(ranges: &[Range]) -> Option<Block> {
    let leaves: Vec<Leaf> = ranges.iter().map(|range| range.leaf).collect::<BTreeSet<_>>().into_iter().collect();
    let mut comparisons = Vec::new();
    grow(ranges, &leaves, &mut comparisons)?;
    let place = |to| match to {
        To::Comparison(index) => index,
        To::Leaf(index) => comparisons.len() + index,
    };
    let tree = comparisons.iter().enumerate().map(|(at, comparison)| {
        let over = |to| (place(to) - at - 1).try_into().ok();
        let (jt, jf) = (over(comparison.holds)?, over(comparison.fails)?);
        Some(sock_filter { code: comparison.code, jt, jf, k: comparison.number })
    });
    Some(Block { tree: tree.collect::<Option<_>>()?, leaves })
}

/// Adds the comparisons for some ranges, each before those that it leads to.
fn grow(ranges: &[Range], leaves: &[Leaf], comparisons: &mut Vec<Comparison>) -> Option<To> {
    let (code, number, fail, hold) = match ranges {
        [] => return None,
        [one] => return leaves.binary_search(&one.leaf).ok().map(To::Leaf),
        // A number alone among others of a kind.
        [below, one, above] if below.leaf == above.leaf && above.from == one.from + 1 => {
            (IF_EQUAL, one.from, ranges.get(..1)?, ranges.get(1..2)?)
        }
        _ => {
            // An odd number of them is more likely to end in numbers that stand alone.
            let (below, above) = ranges.split_at((ranges.len() / 2) | 1);
            (IF_NOT_LESS, above.first()?.from, below, above)
        }
    };
    let index = comparisons.len();
    comparisons.push(Comparison { code, number, holds: To::Leaf(0), fails: To::Leaf(0) });
    let fails = grow(fail, leaves, comparisons)?;
    let holds = grow(hold, leaves, comparisons)?;
    *comparisons.get_mut(index)? = Comparison { code, number, holds, fails };
    Some(To::Comparison(index))
}

/// Writes all of it: a block for each architecture, one for all others, and what looks at arguments.
fn write(known: &[(u32, Block)], others: &Block, kept: &Kept) -> Option<Vec<sock_filter>> {
    // With each known block go the comparison of the architecture and, as with the last, the load of the number.
    let length = 1 + known.iter().map(|(_, block)| 2 + block.len()).sum::<usize>() + 1 + others.len();
    let mut program = vec![plain(LOAD, OFFSET_ARCH)];
    for (arch, block) in known {
        let over = (1 + block.len()).try_into().ok()?;
        program.push(sock_filter { code: IF_EQUAL, jt: 0, jf: over, k: *arch });
        append(&mut program, block, length, kept)?;
    }
    append(&mut program, others, length, kept)?;
    program.extend(&kept.instructions);
    Some(program)
}

/// Adds a block to a program whose last instructions, from `kept_from` on, will be those that are kept.
fn append(program: &mut Vec<sock_filter>, block: &Block, kept_from: usize, kept: &Kept) -> Option<()> {
    program.push(plain(LOAD, OFFSET_NR));
    program.extend(&block.tree);
    for leaf in &block.leaves {
        program.push(match leaf {
            Leaf::Return(verdict) => plain(RETURN, *verdict),
            Leaf::Arguments(at) => {
                let over = kept_from + kept.places.get(at)? - program.len() - 1;
                plain(JUMP, over.try_into().ok()?)
            }
        });
    }
    Some(())
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::super::tests::run as interpret;
    use super::super::{build, read};
    use super::*;
    use oci_spec::runtime::LinuxSeccomp;
    use serde_json::{Value, json};

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    fn whole(profile: Value) -> Vec<sock_filter> {
        let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
        build::whole(&read(&profile).unwrap()).unwrap()
    }

    /// Numbers, architectures and arguments that a program may tell apart: all of its constants and what is beside them.
    fn tried(program: &[sock_filter]) -> (BTreeSet<u32>, BTreeSet<u64>) {
        let around = |k: u32| [k.wrapping_sub(1), k, k.wrapping_add(1)];
        let constants: BTreeSet<u32> = program.iter().flat_map(|step| around(step.k)).collect();
        let x32 = (0..600).map(|nr| nr | 1 << 30);
        let numbers = constants.iter().copied().chain(0..600).chain(x32).chain([1 << 31, u32::MAX]);
        let arguments = constants.iter().map(|k| u64::from(*k)).chain([0, 2, 1 << 32, u64::MAX]);
        (numbers.collect(), arguments.collect())
    }

    fn decides_the_same(whole: &[sock_filter], compacted: &[sock_filter]) {
        let (numbers, arguments) = tried(whole);
        for arch in Seen::by(whole).unwrap().archs.into_iter().chain([0, 1, u32::MAX]) {
            for number in numbers.iter().copied() {
                let same = |args: [u64; 6]| {
                    let [before, after] = [whole, compacted].map(|program| interpret(program, arch, number, &args));
                    assert_eq!(before, after, "{arch:#x} {number:#x} {args:x?}");
                };
                same([0; 6]);
                if let Some(Leaf::Arguments(_)) = super::run(whole, arch, number) {
                    arguments.iter().for_each(|argument| each_and_all(*argument).for_each(same));
                }
            }
        }
    }

    /// Arguments of which one, two neighbours, or all have a value.
    fn each_and_all(value: u64) -> impl Iterator<Item = [u64; 6]> {
        let alone = (0..6).map(move |index| std::array::from_fn(|at| if at == index { value } else { 0 }));
        let pairs =
            (0..5).map(move |index| std::array::from_fn(|at| if at == index || at == index + 1 { value } else { 7 }));
        alone.chain(pairs).chain([[value; 6]])
    }

    fn decides_the_same_compacted(profile: Value) {
        let whole = whole(profile);
        // Also where it comes out longer.
        let seen = Seen::by(&whole).unwrap();
        decides_the_same(&whole, &written(&whole, &seen).expect("can be compacted"));
    }

    fn docker() -> Value {
        let config: Value = serde_json::from_str(include_str!("../../../benches/src/docker.json")).unwrap();
        config["linux"]["seccomp"].clone()
    }

    #[test]
    fn dockers_profile_becomes_a_quarter() {
        let whole = whole(docker());
        let compacted = compact(&whole).expect("can be compacted");
        assert!(4 * compacted.len() < whole.len(), "{} -> {}", whole.len(), compacted.len());
        decides_the_same(&whole, &compacted);
    }

    #[test]
    fn one_that_denies_a_few() {
        let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"];
        let names: Vec<&str> =
            "mount umount2 pivot_root setns swapon swapoff reboot kexec_load add_key keyctl bpf ptrace \
            init_module finit_module delete_module acct quotactl open_by_handle_at"
                .split_whitespace()
                .collect();
        decides_the_same_compacted(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": [
                {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
                {"names": ["clone"], "action": "SCMP_ACT_KILL_PROCESS",
                    "args": [{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["ioctl"], "action": "SCMP_ACT_LOG", "args": [
                    {"index": 1, "value": 0x5412, "op": "SCMP_CMP_EQ"},
                    {"index": 2, "value": 0x1_0000_0001u64, "op": "SCMP_CMP_GE"}]}]}),
        );
    }

    #[test]
    fn many_rules_about_the_arguments_of_one_call() {
        let rule = |value| {
            json!({"names": ["ioctl"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]})
        };
        let mut profile = docker();
        let rules = profile["syscalls"].as_array_mut().unwrap();
        rules.retain(|rule| !rule["names"].as_array().unwrap().contains(&json!("ioctl")));
        rules.extend((0..100).map(|number| rule(0xdead_0000u32 + number)));
        decides_the_same_compacted(profile);
    }

    #[test]
    fn what_is_no_shorter_stays() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []});
        assert!(compact(&whole(profile)).is_none());
    }

    #[test]
    fn what_libseccomp_does_not_write_stays() {
        let test = |code, k| sock_filter { code, jt: 0, jf: 1, k };
        let verdicts = [plain(RETURN, KILL), plain(RETURN, ALLOW)];
        let load = [plain(LOAD, OFFSET_NR)];
        let and = plain((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 1);
        for program in [
            // A comparison without anything loaded, of a low bit, of an architecture by size, after arithmetic.
            [&[test(IF_EQUAL, 1)], &verdicts[..]].concat(),
            [&load[..], &[test(IF_ANY_BIT, 1)], &verdicts].concat(),
            [&[plain(LOAD, OFFSET_ARCH), test(IF_GREATER, 1)], &verdicts[..]].concat(),
            [&load[..], &[and, test(IF_EQUAL, 1)], &verdicts].concat(),
            // No end.
            load.to_vec(),
        ] {
            assert!(Seen::by(&program).is_none());
            assert!(compact(&program).is_none());
        }
    }

    #[test]
    fn jumps_that_are_too_long_leave_the_program_as_it_is() {
        let tests = (0..600).map(|number| sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: 2 * number });
        let each = tests.flat_map(|test| [test, plain(RETURN, KILL)]);
        let program: Vec<_> = [plain(LOAD, OFFSET_NR)].into_iter().chain(each).chain([plain(RETURN, ALLOW)]).collect();
        assert!(Seen::by(&program).is_some());
        assert!(compact(&program).is_none());
    }
}

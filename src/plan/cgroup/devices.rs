//! Rules about devices: those of config.json and the defaults, for the v1 controller and as a
//! program for v2.
//!
//! Of two rules that match an access the later one wins. On v2 that is exactly so, for each kind of
//! access alone. The v1 controller keeps a default and a list of exceptions from it, which cannot
//! express a hole in an exception with a wildcard: that is refused, since the kernel would ignore
//! it without a word.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

/// BPF_DEVCG_ACC_MKNOD, _READ and _WRITE of linux/bpf.h.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// What kind of device a rule is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    All,
    Block,
    Char,
}

/// One rule. Without a number it is for all numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceRule {
    allow: bool,
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// What every container may do whatever its configuration says, since clients have come to rely on
/// what runc has here: making any node (opening it is another matter), the devices that the
/// specification asks for, pseudo-terminals, and /dev/net/tun, which runc 1.2 took away and had to
/// give back.
const DEFAULTS: [DeviceRule; 11] = [
    default(Kind::Char, None, None, MKNOD),
    default(Kind::Block, None, None, MKNOD),
    default(Kind::Char, Some(1), Some(3), ALL),
    default(Kind::Char, Some(1), Some(8), ALL),
    default(Kind::Char, Some(1), Some(7), ALL),
    default(Kind::Char, Some(5), Some(0), ALL),
    default(Kind::Char, Some(1), Some(5), ALL),
    default(Kind::Char, Some(1), Some(9), ALL),
    default(Kind::Char, Some(136), None, ALL),
    default(Kind::Char, Some(5), Some(2), ALL),
    default(Kind::Char, Some(10), Some(200), ALL),
];

const fn default(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> DeviceRule {
    DeviceRule { allow: true, kind, major, minor, access }
}

/// Returns the rules of config.json with the defaults after them.
pub(super) fn rules(configured: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>> {
    let mut rules = Vec::with_capacity(configured.len() + DEFAULTS.len());
    for (index, rule) in configured.iter().enumerate() {
        let rule = DeviceRule {
            allow: rule.allow(),
            kind: kind(rule.typ())?,
            major: number(rule.major(), index)?,
            minor: number(rule.minor(), index)?,
            access: access(rule.access().as_deref().unwrap_or_default(), index)?,
        };
        // One for all devices is for every access, whatever it says.
        if rule.access != 0 || rule.kind == Kind::All {
            rules.push(rule);
        }
    }
    rules.extend(DEFAULTS);
    Ok(rules)
}

fn kind(typ: Option<LinuxDeviceType>) -> Result<Kind> {
    match typ {
        None | Some(LinuxDeviceType::A) => Ok(Kind::All),
        Some(LinuxDeviceType::B) => Ok(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Ok(Kind::Char),
        Some(LinuxDeviceType::P) => Err(Error::invalid("invalid cgroup device type \"p\"")),
    }
}

fn number(number: Option<i64>, index: usize) -> Result<Option<u32>> {
    match number {
        // runc's word for "all" in its own state, which some clients send.
        None | Some(-1) => Ok(None),
        Some(number) => {
            let valid = u32::try_from(number).ok();
            valid.map(Some).ok_or_else(|| Error::invalid(format!("device number {number} at {index} is not valid")))
        }
    }
}

fn access(letters: &str, index: usize) -> Result<u8> {
    if letters.is_empty() {
        return Err(Error::invalid(format!("device access at {index} field cannot be empty")));
    }
    // As with runc, other letters mean nothing.
    Ok(letters.bytes().fold(0, |access, letter| match letter {
        b'r' => access | READ,
        b'w' => access | WRITE,
        b'm' => access | MKNOD,
        _ => access,
    }))
}

/// What the v1 controller has to be told, as lines for its two files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    /// Whether a device that no line names is allowed.
    pub default_allow: bool,
    /// The exceptions from that, as devices.allow or devices.deny takes them.
    pub exceptions: Vec<String>,
}

impl Rules {
    /// Computes what the rules leave in the end, so that nothing is written that another rule takes
    /// back.
    pub(super) fn from_rules(rules: &[DeviceRule]) -> Result<Self> {
        let mut default_allow = false;
        let mut exceptions: Vec<DeviceRule> = Vec::new();
        for rule in rules {
            if rule.kind == Kind::All {
                // For the controller "a" is every device with every access, whatever numbers and
                // letters come with it.
                default_allow = rule.allow;
                exceptions.clear();
            } else if rule.allow == default_allow {
                take_back(&mut exceptions, rule)?;
            } else {
                match exceptions.iter_mut().find(|exception| exception.is_about_the_same(rule)) {
                    Some(exception) => exception.access |= rule.access,
                    None => exceptions.push(*rule),
                }
            }
        }
        Ok(Self { default_allow, exceptions: exceptions.iter().map(DeviceRule::line).collect() })
    }
}

/// Removes what `rule` is about from the exceptions.
fn take_back(exceptions: &mut Vec<DeviceRule>, rule: &DeviceRule) -> Result<()> {
    let hole = exceptions
        .iter()
        .find(|exception| exception.overlaps(rule) && !rule.covers(exception) && exception.access & rule.access != 0);
    if let Some(exception) = hole {
        return Err(Error::invalid(format!(
            "device rule [{}] not supported by cgroup v1 (cannot punch hole in existing wildcard rule [{}])",
            rule.line(),
            exception.line()
        )));
    }
    for exception in exceptions.iter_mut().filter(|exception| rule.covers(exception)) {
        exception.access &= !rule.access;
    }
    exceptions.retain(|exception| exception.access != 0);
    Ok(())
}

impl DeviceRule {
    fn is_about_the_same(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Returns whether every device of the other rule is one of this rule.
    fn covers(&self, other: &Self) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }

    /// Returns whether any device is one of both rules.
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    /// Returns the rule as the v1 controller writes it.
    fn line(&self) -> String {
        let kind = match self.kind {
            Kind::All => 'a',
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String =
            letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// One instruction of the kernel's BPF machine: `struct bpf_insn` of linux/bpf.h.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u8,
    /// The destination register in the low half, the source register in the high one.
    pub registers: u8,
    /// How many instructions a jump skips, or where in memory a load begins.
    pub offset: i16,
    /// The constant operand.
    pub immediate: i32,
}

/// The rules that a program has to look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    default_allow: bool,
    rules: Vec<DeviceRule>,
}

// Operations of the machine (linux/bpf.h, linux/bpf_common.h). Those of 32 bits clear the upper half of the register.
const LOAD_WORD: u8 = 0x61;
const MOVE32: u8 = 0xb4;
const MOVE32_REGISTER: u8 = 0xbc;
const AND32: u8 = 0x54;
const AND32_REGISTER: u8 = 0x5c;
const OR32_REGISTER: u8 = 0x4c;
const XOR32: u8 = 0xa4;
const SHIFT_RIGHT32: u8 = 0x74;
const ADD64: u8 = 0x07;
const MULTIPLY32: u8 = 0x24;
const SHIFT_RIGHT64: u8 = 0x77;
const EXIT: u8 = 0x95;

// Registers: the kinds of access that are allowed, and in the end the verdict; the context that the kernel passes; what
// the program keeps of it; and two to compute with.
const ALLOWED: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const DIFFERENCE: u8 = 6;
const NUMBER: u8 = 7;

impl Filter {
    /// Keeps those rules that decide anything.
    pub(super) fn from_rules(rules: &[DeviceRule]) -> Self {
        let last = rules.iter().rposition(|rule| rule.kind == Kind::All);
        let default_allow = last.is_some_and(|last| rules[last].allow);
        let rest = &rules[last.map_or(0, |last| last + 1)..];
        let first = rest.iter().position(|rule| rule.allow != default_allow).unwrap_or(rest.len());
        Self { default_allow, rules: rest[first..].to_vec() }
    }

    /// Returns the program, or none if it would allow everything.
    ///
    /// It has no jumps: each rule adds its access to what is allowed, or takes it away, by as many instructions whether
    /// it matches or not. The kernel's verifier follows every branch, which for a program with jumps took a tenth of
    /// the time that a container needs to start.
    pub(super) fn program(&self) -> Option<Vec<Instruction>> {
        if self.default_allow && self.rules.is_empty() {
            return None;
        }
        // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, where access_type
        // has the access above bit 16 and the kind below.
        let mut program = vec![
            load(KIND, 0),
            register(MOVE32_REGISTER, ASKED, KIND),
            constant(AND32, KIND, 0xffff),
            constant(SHIFT_RIGHT32, ASKED, 16),
            load(MAJOR, 4),
            load(MINOR, 8),
            constant(MOVE32, ALLOWED, if self.default_allow { i32::from(ALL) } else { 0 }),
        ];
        for rule in &self.rules {
            rule.emit(&mut program);
        }
        // The verdict is 1 if nothing was asked for that is not allowed.
        program.extend([constant(XOR32, ALLOWED, -1), register(AND32_REGISTER, ALLOWED, ASKED)]);
        program.extend(one_if_zero(ALLOWED));
        program.push(constant(EXIT, 0, 0));
        Some(program)
    }
}

impl DeviceRule {
    fn emit(&self, program: &mut Vec<Instruction>) {
        // BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR.
        let kind = if self.kind == Kind::Block { 1 } else { 2 };
        program.extend([register(MOVE32_REGISTER, DIFFERENCE, KIND), constant(XOR32, DIFFERENCE, kind)]);
        for (asked, number) in [(MAJOR, self.major), (MINOR, self.minor)] {
            let Some(number) = number else { continue };
            program.extend([
                register(MOVE32_REGISTER, NUMBER, asked),
                constant(XOR32, NUMBER, number as i32),
                register(OR32_REGISTER, DIFFERENCE, NUMBER),
            ]);
        }
        program.extend(one_if_zero(DIFFERENCE));
        program.push(constant(MULTIPLY32, DIFFERENCE, i32::from(self.access)));
        match self.allow {
            true => program.push(register(OR32_REGISTER, ALLOWED, DIFFERENCE)),
            false => {
                program.extend([constant(XOR32, DIFFERENCE, -1), register(AND32_REGISTER, ALLOWED, DIFFERENCE)]);
            }
        }
    }
}

/// A register whose upper half is clear becomes 1 if it is zero, and 0 otherwise: less one, only zero has the top bit.
///
/// A signed shift would make a mask of it, but of that the verifier (6.18) follows both values as if it were a branch.
fn one_if_zero(register: u8) -> [Instruction; 2] {
    [constant(ADD64, register, -1), constant(SHIFT_RIGHT64, register, 63)]
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | CONTEXT << 4, offset, immediate: 0 }
}

fn constant(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn register(code: u8, to: u8, from: u8) -> Instruction {
    Instruction { code, registers: to | from << 4, offset: 0, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, for one access.
    fn run(program: &[Instruction], kind: u32, access: u8, numbers: (u32, u32)) -> bool {
        let context = [u32::from(access) << 16 | kind, numbers.0, numbers.1];
        let mut registers = [0u64; 8];
        for &Instruction { code, registers: operands, offset, immediate } in program {
            let (to, from) = (usize::from(operands & 15), usize::from(operands >> 4));
            let (left, right, constant) = (registers[to] as u32, registers[from] as u32, immediate as u32);
            let low = |value: u32| u64::from(value);
            registers[to] = match code {
                LOAD_WORD => {
                    assert_eq!(from, usize::from(CONTEXT));
                    low(context[offset as usize / 4])
                }
                MOVE32 => low(constant),
                MOVE32_REGISTER => low(right),
                AND32 => low(left & constant),
                AND32_REGISTER => low(left & right),
                OR32_REGISTER => low(left | right),
                XOR32 => low(left ^ constant),
                SHIFT_RIGHT32 => low(left >> immediate),
                ADD64 => registers[to].wrapping_add(i64::from(immediate) as u64),
                MULTIPLY32 => low(left.wrapping_mul(constant)),
                SHIFT_RIGHT64 => registers[to] >> immediate,
                EXIT => return registers[usize::from(ALLOWED)] == 1,
                other => panic!("unknown operation {other:#x}"),
            };
        }
        panic!("the program does not end");
    }

    fn parse(json: &str) -> Result<Vec<DeviceRule>> {
        rules(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;
    const DENY: &str = r#"[{"allow": false, "access": "rwm"}]"#;

    #[test]
    fn a_program_decides_as_the_rules_do() {
        let hole = r#"[{"allow": true, "type": "c", "major": 9, "access": "rwm"},
            {"allow": false, "type": "c", "major": 9, "minor": 1, "access": "w"},
            {"allow": true, "type": "b", "major": 4294967295, "minor": 0, "access": "r"}]"#;
        let all_but_one = r#"[{"allow": true, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "rw"}]"#;
        let pieces = r#"[{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"},
            {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "w"}]"#;
        let letters = r#"[{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwa"},
            {"allow": true, "type": "c", "major": 1, "minor": 12, "access": "x"}]"#;
        let cases = [
            // rules, kind, access, numbers, whether it is allowed
            (DENY, CHAR, READ | WRITE, (1, 3), true),
            (DENY, CHAR, READ | WRITE, (136, 77), true),
            (DENY, CHAR, READ, (1, 11), false),
            (DENY, CHAR, READ, (5, 1), false),
            (DENY, CHAR, MKNOD, (1, 11), true),
            (DENY, CHAR, MKNOD | READ, (1, 11), false),
            (DENY, BLOCK, MKNOD, (8, 0), true),
            (DENY, BLOCK, READ, (1, 3), false),
            ("[]", CHAR, READ, (1, 11), false),
            (hole, CHAR, READ | WRITE, (9, 0), true),
            (hole, CHAR, READ, (9, 1), true),
            (hole, CHAR, READ | WRITE, (9, 1), false),
            (hole, BLOCK, READ, (u32::MAX, 0), true),
            (hole, BLOCK, READ, (u32::MAX, 1), false),
            (all_but_one, BLOCK, READ, (8, 0), false),
            (all_but_one, BLOCK, MKNOD, (8, 0), true),
            (all_but_one, BLOCK, WRITE, (8, 1), true),
            (all_but_one, CHAR, ALL, (10, 229), true),
            (letters, CHAR, READ | WRITE, (1, 11), true),
            (letters, CHAR, READ, (1, 12), false),
            (pieces, BLOCK, READ | WRITE, (8, 0), true),
            (pieces, BLOCK, ALL, (8, 0), true),
        ];
        for (json, kind, access, numbers, allowed) in cases {
            let program = Filter::from_rules(&parse(json).unwrap()).program().unwrap();
            assert_eq!(run(&program, kind, access, numbers), allowed, "{json} {kind} {access} {numbers:?}");
        }
    }

    #[test]
    fn rules_that_allow_everything_need_no_program() {
        for json in [
            r#"[{"allow": true, "access": "rwm"}]"#,
            r#"[{"allow": false, "type": "c", "access": "r"}, {"allow": true, "type": "a", "access": "rwm"}]"#,
        ] {
            assert_eq!(Filter::from_rules(&parse(json).unwrap()).program(), None);
        }
    }

    #[test]
    fn the_v1_controller_is_told_what_is_left() {
        let defaults = Rules::from_rules(&parse("[]").unwrap()).unwrap().exceptions;
        assert_eq!(defaults[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(defaults[8..], ["c 136:* rwm", "c 5:2 rwm", "c 10:200 rwm"]);
        let cases: &[(&str, bool, &[&str])] = &[
            (r#"[{"allow": true, "access": "rwm"}]"#, true, &[]),
            (r#"[{"allow": true, "type": "c", "major": 1, "minor": 12, "access": "x"}]"#, false, &[]),
            (
                r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "major": 8, "access": "rm"}]"#,
                true,
                // The defaults come later and win.
                &["b 8:* r"],
            ),
            (
                r#"[{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "rwm"},
                    {"allow": false, "type": "b", "major": 8, "access": "w"}]"#,
                false,
                &["b 8:0 rm"],
            ),
            (
                r#"[{"allow": true, "type": "u", "major": 9, "minor": 0, "access": "r"},
                    {"allow": true, "type": "c", "major": 9, "minor": 0, "access": "w"}]"#,
                false,
                &["c 9:0 rw"],
            ),
        ];
        for (json, default_allow, exceptions) in cases {
            let told = Rules::from_rules(&parse(json).unwrap()).unwrap();
            let own = told.exceptions.iter().map(String::as_str);
            let own: Vec<&str> = own.filter(|line| !defaults.iter().any(|known| known == line)).collect();
            assert_eq!((told.default_allow, own), (*default_allow, exceptions.to_vec()), "{json}");
        }
    }

    #[test]
    fn rules_that_are_none_are_refused() {
        let cases = [
            (r#"[{"allow": true}]"#, "device access at 0 field cannot be empty"),
            (r#"[{"allow": true, "type": "p", "access": "r"}]"#, "invalid cgroup device type \"p\""),
            (r#"[{"allow": true, "major": -2, "access": "r"}]"#, "device number -2 at 0 is not valid"),
            (r#"[{"allow": true, "minor": 4294967296, "access": "r"}]"#, "device number 4294967296 at 0 is not valid"),
        ];
        for (json, text) in cases {
            assert_eq!(parse(json).unwrap_err().to_string(), text);
        }
    }
}

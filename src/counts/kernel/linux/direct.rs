//! A function of the kernel by which a program reads packets where they lie, instead of copying their headers first.
//!
//! `bpf_rdonly_cast` is there since Linux 6.2. It is no helper: the ABI gives it no number, the number is that which the
//! running kernel's description of its types gives it, and stands in the instruction that calls it. The library that loads
//! the programs does not know such functions, so this is done here, before the object is handed to it.

use std::borrow::Cow;

use aya::Btf;
use aya_obj::btf::BtfKind;

const FUNCTION: &str = "bpf_rdonly_cast";

/// The call as it stands in the object: BPF_JMP | BPF_CALL, no registers, no offset, and the number of `read_only_as` in
/// kernel.bpf.h.
const PLACEHOLDER: [u8; 8] = [0x85, 0, 0, 0, 0x64, 0x64, 0x70, 0x6b];

/// The object with the running kernel's number in its calls. Where the kernel has no such function the object is left as
/// it is, and the one program that calls it cannot be loaded.
pub(super) fn with_function<'a>(object: &'a [u8], types: &Btf) -> Cow<'a, [u8]> {
    let Ok(number) = types.id_by_type_name_kind(FUNCTION, BtfKind::Func) else {
        return Cow::Borrowed(object);
    };
    Cow::Owned(with_number(object, number))
}

fn with_number(object: &[u8], number: u32) -> Vec<u8> {
    let mut object = object.to_vec();
    let (instructions, _) = object.as_chunks_mut::<8>();
    for instruction in instructions.iter_mut().filter(|it| **it == PLACEHOLDER) {
        *instruction = call(number);
    }
    object
}

/// A call of a function of the kernel: the source register says so (BPF_PSEUDO_KFUNC_CALL of linux/bpf.h).
fn call(number: u32) -> [u8; 8] {
    let [a, b, c, d] = number.to_le_bytes();
    [0x85, 2 << 4, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_and_nothing_else_is_changed() {
        let object = super::super::start::OBJECT;
        let fitted = with_number(object, 0x0102_0304);
        assert_eq!(fitted.len(), object.len());
        let changed: Vec<_> = (0..object.len())
            .step_by(8)
            .filter(|&at| object[at..].get(..8) != fitted[at..].get(..8))
            .collect();
        // One for IPv4, one for IPv6.
        assert_eq!(changed.len(), 2);
        for at in changed {
            assert_eq!(fitted[at..at + 8], [0x85, 0x20, 0, 0, 4, 3, 2, 1]);
        }
    }
}

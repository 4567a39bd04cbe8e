//! Where the running kernel keeps fields that no program context shows: its own BTF, read far enough to find a
//! field's offset (aya keeps the members of structures to itself).
//!
//! Format: Documentation/bpf/btf.rst. Truncated or unknown input yields "not found", never a panic.

/// Where a field lies in its structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Offset in bits from the start of the structure.
    pub(super) bit: u32,
    /// Width in bits of a bit field, 0 for any other.
    pub(super) width: u32,
}

impl Field {
    /// Offset in bytes.
    pub(super) fn byte(self) -> u32 {
        self.bit / 8
    }

    /// The bits of a bit field within its byte, on the machine's own byte order.
    pub(super) fn mask(self) -> u32 {
        ((1 << self.width) - 1) << (self.bit % 8)
    }
}

/// Finds `structure.field` in raw BTF.
pub(super) fn field(btf: &[u8], structure: &str, field: &str) -> Option<Field> {
    let u32_at = |at: usize| btf.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let header = u32_at(4)? as usize;
    let types = header.checked_add(u32_at(8)? as usize)?;
    let end = types.checked_add(u32_at(12)? as usize)?;
    let strings = header.checked_add(u32_at(16)? as usize)?;
    let name_is = |offset: u32, wanted: &str| {
        let start = strings.saturating_add(offset as usize);
        let bytes = btf.get(start..start.saturating_add(wanted.len() + 1));
        bytes.is_some_and(|b| b.strip_suffix(&[0]) == Some(wanted.as_bytes()))
    };
    let mut at = types;
    while at < end {
        let (name, info) = (u32_at(at)?, u32_at(at + 4)?);
        let (kind, members, bit_fields) = ((info >> 24) & 31, (info & 0xffff) as usize, info >> 31 == 1);
        at += 12;
        if kind == 4 && name_is(name, structure) {
            for member in (0..members).map(|m| at + 12 * m) {
                if name_is(u32_at(member)?, field) {
                    let offset = u32_at(member + 8)?;
                    return Some(if bit_fields {
                        Field { bit: offset & 0x00ff_ffff, width: offset >> 24 }
                    } else {
                        Field { bit: offset, width: 0 }
                    });
                }
            }
        }
        at += match kind {
            1 | 14 | 17 => 4,                // INT, VAR, DECL_TAG
            3 => 12,                         // ARRAY
            4 | 5 | 15 | 19 => 12 * members, // STRUCT, UNION, DATASEC, ENUM64
            6 | 13 => 8 * members,           // ENUM, FUNC_PROTO
            2 | 7..=12 | 16 | 18 => 0,       // PTR, FWD, TYPEDEF, qualifiers, FUNC, FLOAT, TYPE_TAG
            _ => return None,                // a kind made after this was written: its size is not known
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_running_kernel_shows_the_fields_that_the_programs_read() {
        let Ok(btf) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: this kernel shows no BTF");
            return;
        };
        let err = field(&btf, "sock", "sk_err").expect("sk_err");
        assert_eq!((err.bit % 32, err.width), (0, 0));
        let only = field(&btf, "sock_common", "skc_ipv6only").expect("skc_ipv6only");
        assert_eq!((only.width, only.mask().count_ones()), (1, 1));
        assert_eq!(field(&btf, "sock", "no_such_field"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = field(&bytes, "sock", "sk_err");
        }

        #[test]
        fn small_sections_of_any_types_are_answered_without_a_panic(words in proptest::collection::vec(0..40u32, 0..80)) {
            let mut btf: Vec<u8> = [0x0001_eb9f, 24, 0, 4 * words.len() as u32, 0, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
            btf.extend(words.iter().flat_map(|w| (w << 24 | w).to_ne_bytes()));
            let _ = field(&btf, "sock", "sk_err");
        }
    }
}

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

/// Finds `structure.field` in raw BTF, in structures and unions without a name within it too.
pub(super) fn field(btf: &[u8], structure: &str, field: &str) -> Option<Field> {
    let btf = Btf::new(btf)?;
    let mut found = None;
    btf.walk(|_, found_in| {
        if found_in.kind == STRUCT && btf.name_is(found_in.name, structure) {
            found = btf.member(found_in, field, 0);
        }
        found.is_some()
    })?;
    found
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// How deep unnamed structures are looked into; what we ask for lies in the first.
const MAX_DEPTH: u32 = 3;

/// The parts of raw BTF.
struct Btf<'a> {
    raw: &'a [u8],
    types: usize,
    types_end: usize,
    strings: usize,
}

/// One type, as the walk meets it.
#[derive(Clone, Copy)]
struct Type {
    kind: u32,
    name: u32,
    /// Where its members begin.
    members: usize,
    count: usize,
    bit_fields: bool,
}

impl<'a> Btf<'a> {
    fn new(raw: &'a [u8]) -> Option<Self> {
        let mut btf = Self { raw, types: 0, types_end: 0, strings: 0 };
        let header = btf.u32_at(4)? as usize;
        btf.types = header.checked_add(btf.u32_at(8)? as usize)?;
        btf.types_end = btf.types.checked_add(btf.u32_at(12)? as usize)?;
        btf.strings = header.checked_add(btf.u32_at(16)? as usize)?;
        Some(btf)
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        self.raw.get(at..at.checked_add(4)?).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
    }

    fn name_is(&self, offset: u32, wanted: &str) -> bool {
        let start = self.strings.saturating_add(offset as usize);
        let bytes = self.raw.get(start..start.saturating_add(wanted.len() + 1));
        bytes.is_some_and(|b| b.strip_suffix(&[0]) == Some(wanted.as_bytes()))
    }

    /// Shows every type with its number to `visit`, until it says that it has seen enough.
    fn walk(&self, mut visit: impl FnMut(u32, Type) -> bool) -> Option<()> {
        let (mut at, mut id) = (self.types, 1);
        while at < self.types_end {
            let (name, info) = (self.u32_at(at)?, self.u32_at(at + 4)?);
            let (kind, count) = ((info >> 24) & 31, (info & 0xffff) as usize);
            at += 12;
            if visit(id, Type { kind, name, members: at, count, bit_fields: info >> 31 == 1 }) {
                return Some(());
            }
            id += 1;
            at += match kind {
                1 | 14 | 17 => 4,                       // INT, VAR, DECL_TAG
                3 => 12,                                // ARRAY
                STRUCT | UNION | 15 | 19 => 12 * count, // and DATASEC, ENUM64
                6 | 13 => 8 * count,                    // ENUM, FUNC_PROTO
                2 | 7..=12 | 16 | 18 => 0,              // PTR, FWD, TYPEDEF, qualifiers, FUNC, FLOAT, TYPE_TAG
                _ => return None,                       // a kind made after this was written: its size is not known
            };
        }
        Some(())
    }

    fn by_id(&self, wanted: u32) -> Option<Type> {
        let mut found = None;
        self.walk(|id, this| {
            found = (id == wanted).then_some(this);
            found.is_some()
        })?;
        found
    }

    /// Finds `field` among the members of `within`.
    fn member(&self, within: Type, field: &str, depth: u32) -> Option<Field> {
        for at in (0..within.count).map(|m| within.members + 12 * m) {
            let (name, kind, offset) = (self.u32_at(at)?, self.u32_at(at + 4)?, self.u32_at(at + 8)?);
            let here = if within.bit_fields {
                Field { bit: offset & 0x00ff_ffff, width: offset >> 24 }
            } else {
                Field { bit: offset, width: 0 }
            };
            if self.name_is(name, field) {
                return Some(here);
            }
            if name == 0 && depth < MAX_DEPTH {
                let inner = self.by_id(kind).filter(|t| matches!(t.kind, STRUCT | UNION));
                if let Some(found) = inner.and_then(|t| self.member(t, field, depth + 1)) {
                    return Some(Field { bit: here.bit.checked_add(found.bit)?, width: found.width });
                }
            }
        }
        None
    }
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
        let flags = field(&btf, "sock_common", "skc_flags").expect("skc_flags");
        assert_eq!((flags.bit % 64, flags.width), (0, 0));
        assert_eq!(field(&btf, "sock", "no_such_field"), None);
    }

    #[test]
    fn a_member_of_an_unnamed_union_lies_where_the_union_does() {
        // Strings: 1 "outer", 7 "inner". Types: 1 union {inner at 32}, 2 struct outer {(1) at 64}, a union in itself.
        let types: [u32; 12] = [0, UNION << 24 | 1, 8, 7, 0, 32, 1, STRUCT << 24 | 1, 16, 0, 1, 64];
        let mut btf: Vec<u8> =
            [0x0001_eb9f_u32, 24, 0, 48, 48, 13].iter().chain(&types).flat_map(|w| w.to_ne_bytes()).collect();
        btf.extend(b"\0outer\0inner\0");
        assert_eq!(field(&btf, "outer", "inner"), Some(Field { bit: 96, width: 0 }));
        assert_eq!(field(&btf, "outer", "other"), None);
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

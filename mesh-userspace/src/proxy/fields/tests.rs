use super::*;
use proptest::prelude::*;

/// These lines in each form.
pub(in super::super) fn both(lines: &[(&str, &str)]) -> [Fields; 2] {
    let mut block = Block::default();
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        block.push(name, value.as_bytes(), false);
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    [block.into(), map.into()]
}

/// These lines, compared as sets of names with values in order.
pub(in super::super) fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let [_, map] = both(lines);
    map.into()
}

/// The same lines, read from a head in which they are spelled and set apart so.
fn parsed(lines: &[(String, String, &'static str, &'static str)]) -> Fields {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value, before, after) in lines {
        head.extend_from_slice(format!("{name}:{before}{value}{after}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut slots);
    assert!(response.parse(&head).unwrap().is_complete());
    Block::of_head(&head, response.headers, 0, |_, _| Ok::<_, ()>(())).unwrap().into()
}

/// What is done to headers.
#[derive(Clone, Debug)]
enum Change {
    Insert(&'static str, String),
    InsertId(&'static str, u32),
    Append(&'static str, String),
    Remove(&'static str),
    Join(&'static str, Option<String>),
}

/// Few names, of which some share a length, and some a bit.
const NAMES: [&str; 8] =
    ["a", "b", "host", "etag", "via", "content-length", "x-request-id", "a-long-name-of-more-than-16"];

fn value() -> impl Strategy<Value = String> {
    "([!-~é]([ -~é\t]{0,20}[!-~])?)?"
}

fn change() -> impl Strategy<Value = Change> {
    let name = || proptest::sample::select(&NAMES[..]);
    prop_oneof![
        (name(), value()).prop_map(|(name, value)| Change::Insert(name, value)),
        (name(), any::<u32>()).prop_map(|(name, id)| Change::InsertId(name, id)),
        (name(), value()).prop_map(|(name, value)| Change::Append(name, value)),
        name().prop_map(Change::Remove),
        (name(), proptest::option::of(value())).prop_map(|(name, more)| Change::Join(name, more)),
    ]
}

fn apply(fields: &mut Fields, change: &Change) {
    let value = |value: &String| HeaderValue::from_bytes(value.as_bytes()).unwrap();
    match change {
        Change::Insert(name, new) => fields.insert(*name, &value(new)),
        Change::InsertId(name, id) => fields.insert_id(*name, format!("{id:x}").as_bytes()),
        Change::Append(name, new) => fields.append(*name, &value(new)),
        Change::Remove(name) => fields.remove(*name),
        Change::Join(name, more) => {
            fields.join(&HeaderName::from_static(name), ", ", more.as_ref().map(value).as_ref());
        }
    }
}

/// What is written, line by line, in the order of names.
fn written(fields: &Fields) -> Vec<String> {
    let mut text = Vec::new();
    let ours = |name: &[u8], value: &[u8]| name == b"etag" || name == b"via" && value == b"x";
    fields.write(&mut text, bits(&["etag", "via"]), ours);
    let text = String::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with("\r\n"));
    let mut lines: Vec<String> = text.split_terminator("\r\n").map(str::to_owned).collect();
    // Of one name they stay in order.
    lines.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
    lines
}

proptest! {
    #[test]
    fn a_block_is_what_a_map_is(
        lines in proptest::collection::vec(
            (
                proptest::sample::select(&NAMES[..]),
                any::<u64>(),
                value(),
                proptest::sample::select(&["", " ", "  ", "\t"][..]),
                proptest::sample::select(&["", "", " ", " \t"][..]),
            ),
            0..12,
        ),
        changes in proptest::collection::vec(change(), 0..12),
    ) {
        let spelled = |name: &str, upper: u64| {
            let letter = |(at, letter): (usize, char)| {
                if upper >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
            };
            name.chars().enumerate().map(letter).collect::<String>()
        };
        let mut block = parsed(
            &lines.iter().map(|(n, upper, v, b, a)| (spelled(n, *upper), v.clone(), *b, *a)).collect::<Vec<_>>(),
        );
        let mut map = HeaderMap::new();
        for (name, _, value, _, _) in &lines {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut map = Fields::from(map);
        for change in [None].into_iter().chain(changes.iter().map(Some)) {
            if let Some(change) = change {
                apply(&mut block, change);
                apply(&mut map, change);
            }
            prop_assert_eq!(block.to_map(), map.to_map());
            prop_assert_eq!(block.len(), map.len());
            prop_assert_eq!(written(&block), written(&map));
            for name in NAMES {
                prop_assert!(block.get_all(name).eq(map.get_all(name)), "{}", name);
                prop_assert_eq!(block.get(name), map.get(name));
                prop_assert_eq!(block.value(name), map.value(name));
                let name = HeaderName::from_static(name);
                prop_assert_eq!(block.contains(&name), map.contains(&name));
            }
        }
        let ids = |fields: Fields| HeaderMap::from(fields).values().map(HeaderValue::is_sensitive).filter(|id| *id).count();
        prop_assert_eq!(ids(block), ids(map));
    }
}

#[test]
fn letters_are_put_in_lower_case_and_nothing_else_is_changed() {
    for length in 1..40 {
        let name: String = (0..length).map(|at| char::from(b"AZ-_az09~`'|^XyZ"[at % 16])).collect();
        let fields = parsed(&[(name.clone(), "A Value".to_owned(), " ", "")]);
        let expected = (name.to_ascii_lowercase().into_bytes(), b"A Value".to_vec());
        assert_eq!(fields.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect::<Vec<_>>(), [expected]);
    }
}

/// What the parser takes for a name or a value is one to the map: nothing is looked at again where a block becomes one.
#[test]
fn names_and_values_are_of_the_same_bytes_for_both() {
    for byte in 0..=u8::MAX {
        let mut slots = [httparse::EMPTY_HEADER; 1];
        let line = |name: &[u8], value: &[u8]| [name, b": ", value, b"\r\n\r\n"].concat();
        let is_name = httparse::parse_headers(&line(&[b'a', byte, b'b'], b"v"), &mut slots)
            .is_ok_and(|status| matches!(status, httparse::Status::Complete((_, [h])) if h.name.len() == 3));
        assert_eq!(is_name, HeaderName::from_bytes(&[b'a', byte, b'b']).is_ok(), "{byte}");
        let mut slots = [httparse::EMPTY_HEADER; 1];
        let is_value = httparse::parse_headers(&line(b"a", &[b'a', byte, b'b']), &mut slots)
            .is_ok_and(|status| matches!(status, httparse::Status::Complete((_, [h])) if h.value.len() == 3));
        assert_eq!(is_value, HeaderValue::from_bytes(&[b'a', byte, b'b']).is_ok(), "{byte}");
    }
}

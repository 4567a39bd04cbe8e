//! Pages with parts that are generated.

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

/// The page with every generated part made anew by `part`, from the words in its marker.
pub(crate) fn filled(page: &str, part: impl Fn(&str, &[&str]) -> Result<String, String>) -> Result<String, String> {
    let mut filled = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (words, after) = after.split_once(" -->\n").ok_or("a marker has no end")?;
        let (old, after) = after.split_once(END).ok_or_else(|| format!("no {END} after {BEGIN}{words}"))?;
        if old.contains(BEGIN) {
            return Err(format!("no {END} between {BEGIN}{words} and the next one"));
        }
        let mut arguments = words.split_whitespace();
        let kind = arguments.next().unwrap_or_default();
        let arguments: Vec<&str> = arguments.collect();
        let part = part(kind, &arguments)?;
        filled.push_str(&format!("{before}{BEGIN}{words} -->\n\n{}\n\n{END}", part.trim()));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let page = "a\n<!-- generated: x y z -->\nold\n<!-- end -->\nb\n";
        let once = filled(page, |kind, arguments| Ok(format!("{kind} {arguments:?}\n"))).unwrap();
        assert_eq!(once, "a\n<!-- generated: x y z -->\n\nx [\"y\", \"z\"]\n\n<!-- end -->\nb\n");
        let twice = filled(&once, |kind, arguments| Ok(format!("{kind} {arguments:?}\n"))).unwrap();
        assert_eq!(once, twice);
    }

    #[test]
    fn a_marker_without_an_end_is_a_mistake() {
        for page in ["<!-- generated: x -->\n", "<!-- generated: x -->\n<!-- generated: y -->\n<!-- end -->"] {
            assert!(filled(page, |_, _| Ok(String::new())).is_err(), "{page}");
        }
    }
}

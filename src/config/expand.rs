//! Environment variables in Feast's file, as Python's `os.path.expandvars` puts them in. Pure.

/// Replaces `$NAME` and `${NAME}` by what `lookup` has. What is not set stays as it is, and what was
/// put in is not looked at again.
pub(super) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = reference_len(rest);
        let (taken, after) = rest.split_at(reference.max(1));
        let name = taken[1..].trim_start_matches('{').trim_end_matches('}');
        match lookup(name).filter(|_| reference > 1) {
            Some(value) => out.push_str(value),
            None => out.push_str(taken),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The bytes of the reference that `text` begins with; 0 if its `$` begins none.
fn reference_len(text: &str) -> usize {
    let after = &text[1..];
    if after.starts_with('{') {
        return after.find('}').map_or(0, |end| end + 2);
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match after.bytes().take_while(|byte| is_word(byte)).count() {
        0 => 0,
        length => length + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_expands_these_as_recorded() {
        let golden = include_str!("../../tests/golden/feast/config.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let lookup = |name: &str| golden["env"][name].as_str();
        let cases = golden["python_expandvars"].as_object().unwrap();
        assert!(cases.len() > 20);
        for (text, expanded) in cases {
            assert_eq!(expand(text, lookup), expanded.as_str().unwrap(), "{text}");
        }
    }
}

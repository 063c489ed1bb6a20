//! `${NAME}` and `${NAME:-default}` in values, from wherever the caller keeps its variables.

/// Why a text could not be filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Gap {
    /// Nobody set this variable, and it has no default.
    Unset(String),
    /// What stands after `${` is not a variable.
    Unreadable(String),
}

/// What became of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Filled {
    /// No variable is in it; an escaped `$${` may have become `${`.
    Plain(String),
    /// Variables were put in.
    From(String),
    /// Some could not be.
    Gaps(Vec<Gap>),
}

/// Puts variables into a text. As in a shell, the default also stands in for a variable that is set to nothing.
pub(super) fn fill(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Filled {
    let mut filled = String::new();
    let mut gaps = Vec::new();
    let mut any = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            filled.push_str(&rest[..at - 1]);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let Some(end) = inside.find('}') else {
            gaps.push(Gap::Unreadable(rest[at..].to_owned()));
            break;
        };
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        any = true;
        if is_name(name) {
            match (variables(name), default) {
                (Some(value), None) => filled.push_str(&value),
                (Some(value), Some(_)) if !value.is_empty() => filled.push_str(&value),
                (_, Some(default)) => filled.push_str(default),
                (None, None) => gaps.push(Gap::Unset(name.to_owned())),
            }
        } else {
            gaps.push(Gap::Unreadable(rest[at..at + end + 3].to_owned()));
        }
        rest = &inside[end + 1..];
    }
    if !gaps.is_empty() {
        return Filled::Gaps(gaps);
    }
    filled.push_str(rest);
    if any { Filled::From(filled) } else { Filled::Plain(filled) }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_and_escapes_are_not() {
        let variables = |name: &str| match name {
            "HOST" => Some("shop".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".to_owned()),
            _ => None,
        };
        let plain = |text: &str| Filled::Plain(text.to_owned());
        let from = |text: &str| Filled::From(text.to_owned());
        for (text, expected) in [
            ("no variable, $HOST and {HOST}", plain("no variable, $HOST and {HOST}")),
            ("http://${HOST}:80/", from("http://shop:80/")),
            ("${HOST}${HOST}", from("shopshop")),
            ("${PORT:-8080}", from("8080")),
            ("${PORT:-a:-b}", from("a:-b")),
            ("${EMPTY:-default}", from("default")),
            ("[${EMPTY}]", from("[]")),
            ("$${HOST}", plain("${HOST}")),
            ("$${HOST} ${HOST}", from("${HOST} shop")),
            ("${NESTED}", from("${HOST}")),
            ("${PORT}", Filled::Gaps(vec![Gap::Unset("PORT".to_owned())])),
            ("${A} ${B}", Filled::Gaps(vec![Gap::Unset("A".to_owned()), Gap::Unset("B".to_owned())])),
            ("${HOST", Filled::Gaps(vec![Gap::Unreadable("${HOST".to_owned())])),
            ("${9}", Filled::Gaps(vec![Gap::Unreadable("${9}".to_owned())])),
            ("${}", Filled::Gaps(vec![Gap::Unreadable("${}".to_owned())])),
        ] {
            assert_eq!(fill(text, &variables), expected, "{text}");
        }
    }
}

//! What was expected in the place of a word or a number, and what to say where it is something else.

use serde_json::{Number, Value};

use super::node::{Kind, Node};
use super::schema::Leaf;
use super::words::{both, either, join, nearest, quote};
use crate::units;

/// What is wrong with a value, and the way out.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Complaint {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }
}

/// Compares a word, a number or a boolean with what may stand in its place.
pub(super) fn scalar(node: &Node, leaves: &[Leaf<'_>]) -> Result<Value, Complaint> {
    let mut last = None;
    for candidate in candidates(node) {
        for leaf in leaves {
            match compare(&candidate, node, leaf) {
                Ok(value) => return Ok(value),
                Err(Some(complaint)) => last = Some((leaf, complaint)),
                Err(None) => {}
            }
        }
    }
    let words = words(leaves);
    let meant = matches!(node.kind, Kind::Text(_)) && nearest(&shown(node), words.iter().copied()).is_some();
    match last {
        // A mistyped word is not a mistaken unit.
        Some((leaf, complaint)) if !meant || leaf.message.is_some() => {
            let others = || (!words.is_empty()).then(|| format!("or write {}", either(&words)));
            let message = leaf.message.map_or(complaint.message, str::to_owned);
            Err(Complaint { message, help: complaint.help.or_else(others) })
        }
        _ => Err(mismatch(node, leaves)),
    }
}

/// What a value may stand for: a text with variables in it may have become a number or a boolean.
fn candidates(node: &Node) -> Vec<Value> {
    match &node.kind {
        Kind::Bool(value) => vec![Value::Bool(*value)],
        Kind::Number(number) => vec![Value::Number(number.clone())],
        Kind::Text(text) => vec![Value::String(text.clone())],
        Kind::Filled(text) => {
            let number = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
            let number = number.ok().or_else(|| Number::from_f64(decimal(text)?));
            let boolean = match text.as_str() {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            };
            number.map(Value::Number).into_iter().chain(boolean).chain([Value::String(text.clone())]).collect()
        }
        Kind::Null | Kind::Unknown | Kind::List(_) | Kind::Map(_) => Vec::new(),
    }
}

fn decimal(text: &str) -> Option<f64> {
    text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-')).then(|| text.parse().ok()).flatten()
}

/// Takes the value, or says what is wrong; `Err(None)` where the type is another, which is said for all leaves at once.
fn compare(value: &Value, node: &Node, leaf: &Leaf<'_>) -> Result<Value, Option<Complaint>> {
    let kind = match value {
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        _ => "string",
    };
    let format = leaf.schema.get("format").and_then(Value::as_str);
    if !(leaf.takes(kind) || kind == "integer" && leaf.takes("number")) {
        // A number where a unit is expected has most likely lost its unit, and the unit says so best.
        let lost = kind == "integer" || kind == "number";
        let unit = format.filter(|_| lost && leaf.takes("string") && !matches!(node.kind, Kind::Filled(_)));
        let answer = unit.and_then(|format| units::check(format, &shown(node)));
        return Err(answer.and_then(Result::err).map(|error| Complaint::new(error.to_string())));
    }
    if let Some(words) = leaf.words() {
        if words.iter().any(|word| same(word, value)) {
            return Ok(value.clone());
        }
        return Err(None);
    }
    match value {
        Value::String(text) => check_text(text, node, leaf, format)?,
        Value::Number(number) => check_number(number, node, leaf, format)?,
        _ => {}
    }
    Ok(value.clone())
}

/// `1` and `1.0` are one number.
fn same(one: &Value, other: &Value) -> bool {
    one == other || matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if one == other)
}

fn check_text(text: &str, node: &Node, leaf: &Leaf<'_>, format: Option<&str>) -> Result<(), Option<Complaint>> {
    if let Some(Err(error)) = format.and_then(|format| units::check(format, text)) {
        // A variable's value may be a secret: the unit is asked about what is written instead.
        let error = match &node.kind {
            Kind::Filled(_) => format.and_then(|format| units::check(format, &shown(node))?.err()),
            _ => Some(error),
        };
        let message = error.map_or_else(|| wrong(node, leaf), |error| error.to_string());
        return Err(Some(Complaint { message, help: filled(node) }));
    }
    let length = text.chars().count() as u64;
    let bound = |name: &str| leaf.schema.get(name).and_then(Value::as_u64);
    if bound("minLength").is_some_and(|least| length < least) {
        let message = if length == 0 { "this text is empty".to_owned() } else { wrong(node, leaf) };
        return Err(Some(Complaint::new(message)));
    }
    if let Some(most) = bound("maxLength").filter(|most| length > *most) {
        return Err(Some(Complaint::new(format!("this text is longer than {most} characters"))));
    }
    if !leaf.matches(text) {
        return Err(Some(Complaint { message: wrong(node, leaf), help: filled(node) }));
    }
    Ok(())
}

fn check_number(number: &Number, node: &Node, leaf: &Leaf<'_>, format: Option<&str>) -> Result<(), Option<Complaint>> {
    let bound = |name: &str| leaf.schema.get(name).and_then(Value::as_f64);
    // schemars leaves the bounds of these to the reader.
    let (lowest, highest) = match format {
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        _ => (None, None),
    };
    let (least, most) = (bound("minimum").or(lowest), bound("maximum").or(highest));
    let (above, below) = (bound("exclusiveMinimum"), bound("exclusiveMaximum"));
    // The largest number of its type is nobody's bound.
    let most = if bound("maximum").is_none() && number.as_f64() <= highest { None } else { most };
    let value = number.as_f64().unwrap_or(f64::NAN);
    let fits = least.is_none_or(|least| value >= least)
        && most.is_none_or(|most| value <= most)
        && above.is_none_or(|above| value > above)
        && below.is_none_or(|below| value < below);
    if fits {
        return Ok(());
    }
    // Nobody needs to be told the largest number that a type can hold, unless it is too small for them.
    let most = most.filter(|most| value > *most || *most < f64::from(u32::MAX));
    let range = match (least, most, above, below) {
        (Some(least), Some(most), ..) if least == most => format!("`{least}`"),
        (Some(least), Some(most), ..) => format!("a number between {least} and {most}"),
        _ => {
            let bounds = [
                least.map(|least| format!("at least {least}")),
                above.map(|above| format!("more than {above}")),
                most.map(|most| format!("at most {most}")),
                below.map(|below| format!("less than {below}")),
            ];
            let bounds: Vec<String> = bounds.into_iter().flatten().collect();
            format!("a number of {}", join(&bounds, "and"))
        }
    };
    Err(Some(Complaint { message: format!("expected {range}, not {}", what(node)), help: filled(node) }))
}

/// A value of another type, or a word that is not in the list.
pub(super) fn mismatch(node: &Node, leaves: &[Leaf<'_>]) -> Complaint {
    let said = leaves.first().and_then(|leaf| leaf.message).filter(|_| agreed(leaves, |leaf| leaf.message));
    let message = match said {
        Some(said) => said.to_owned(),
        None => format!("expected {}, not {}", nouns(leaves), what(node)),
    };
    let help = match &node.kind {
        Kind::Text(text) => {
            let tag = leaves.iter().find_map(|leaf| leaf.schema.get("properties")?.as_object()?.get_key_value(text));
            let number = || leaves.iter().any(|leaf| leaf.takes("number") || leaf.takes("integer"));
            if tag.is_some() {
                Some(format!("write `{text}:` with what belongs to it"))
            } else if text.parse::<f64>().is_ok() && !padded(text) && number() {
                Some("write it without quotes".to_owned())
            } else {
                nearest(text, words(leaves)).map(|word| format!("did you mean `{word}`?"))
            }
        }
        Kind::Number(_) | Kind::Bool(_) if leaves.iter().any(|leaf| leaf.takes("string") && leaf.words().is_none()) => {
            Some(format!("write it in quotes: `\"{}\"`", shown(node)))
        }
        Kind::Map(_) if leaves.iter().any(|leaf| leaf.takes("array")) => {
            Some("a list has `-` before each entry, or stands in `[ ]`".to_owned())
        }
        _ => filled(node),
    };
    Complaint { message, help }
}

/// A number with zeros before it, which YAML's readers understand differently and ours takes as text.
fn padded(text: &str) -> bool {
    text.trim_start_matches(['-', '+'])
        .strip_prefix('0')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn wrong(node: &Node, leaf: &Leaf<'_>) -> String {
    format!("expected {}, not {}", noun(leaf), what(node))
}

/// A hint where the text that is shown is not the text that was judged.
fn filled(node: &Node) -> Option<String> {
    matches!(node.kind, Kind::Filled(_)).then(|| "look at what the variables in it are set to".to_owned())
}

/// The words of all enums among the leaves.
pub(super) fn words<'a>(leaves: &[Leaf<'a>]) -> Vec<&'a str> {
    leaves.iter().filter_map(Leaf::words).flatten().filter_map(Value::as_str).collect()
}

/// What is expected, in human words.
pub(super) fn nouns(leaves: &[Leaf<'_>]) -> String {
    if let Some(expected) = leaves.first().and_then(|leaf| leaf.expected)
        && agreed(leaves, |leaf| leaf.expected)
    {
        return expected.to_owned();
    }
    let mut all: Vec<String> = words(leaves).iter().map(|word| quote(word)).collect();
    let tags: Vec<&str> = leaves.iter().filter_map(|leaf| Some(leaf.tag()?.0)).collect();
    let tagged = tags.len() > 1;
    if tagged {
        all.push(format!("a mapping with one of {}", either(&tags)));
    }
    for leaf in leaves.iter().filter(|leaf| !(tagged && leaf.tag().is_some())) {
        let text = leaf.words().is_some_and(|words| words.iter().all(Value::is_string));
        let noun = noun(leaf);
        if !text && !all.contains(&noun) {
            all.push(noun);
        }
    }
    join(&all, "or")
}

/// Whether all leaves say the same, as they do where something around them has said it.
fn agreed<'a, 'b>(leaves: &'b [Leaf<'a>], says: impl Fn(&'b Leaf<'a>) -> Option<&'a str>) -> bool {
    leaves.windows(2).all(|pair| says(&pair[0]) == says(&pair[1]))
}

fn noun(leaf: &Leaf<'_>) -> String {
    if let Some(expected) = leaf.expected {
        return expected.to_owned();
    }
    if let Some(words) = leaf.words() {
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("`{}`", word.as_str().map_or_else(|| word.to_string(), str::to_owned)))
            .collect();
        return join(&words, "or");
    }
    let example = leaf.schema.get("examples").and_then(|examples| examples.get(0)?.as_str());
    let unit = match leaf.schema.get("format").and_then(Value::as_str) {
        Some(units::Percent::FORMAT) => Some("a share"),
        Some(units::Points::FORMAT) => Some("percentage points"),
        Some(units::Increase::FORMAT) => Some("an increase"),
        Some(units::Span::FORMAT) => Some("a length of time"),
        Some(units::Rate::FORMAT) => Some("a rate"),
        Some(units::Throughput::FORMAT) => Some("data per second"),
        Some(units::ByteSize::FORMAT) => Some("a size"),
        _ => None,
    };
    let word = match unit {
        Some(unit) => unit.to_owned(),
        None if leaf.takes("string") => "text".to_owned(),
        None if leaf.takes("number") => "a number".to_owned(),
        None if leaf.takes("integer") => "a whole number".to_owned(),
        None if leaf.takes("boolean") => "`true` or `false`".to_owned(),
        None if leaf.takes("array") => "a list".to_owned(),
        None => match leaf.required().collect::<Vec<_>>() {
            keys if (1..=4).contains(&keys.len()) => format!("a mapping with {}", both(&keys)),
            _ => "a mapping".to_owned(),
        },
    };
    match example {
        Some(example) => format!("{word} such as `{example}`"),
        None => word,
    }
}

/// What stands there, in human words.
fn what(node: &Node) -> String {
    match &node.kind {
        Kind::Null | Kind::Unknown => "nothing".to_owned(),
        Kind::Map(_) => "a mapping".to_owned(),
        Kind::List(_) => "a list".to_owned(),
        Kind::Text(text) if text.parse::<f64>().is_ok() => format!("the text {}", quote(text)),
        _ => quote(&shown(node)),
    }
}

/// A value as it was written; what variables stand for is never shown.
fn shown(node: &Node) -> String {
    match (&node.written, &node.kind) {
        (Some(written), _) => written.clone(),
        (None, Kind::Text(text)) => text.clone(),
        (None, Kind::Bool(value)) => value.to_string(),
        (None, Kind::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

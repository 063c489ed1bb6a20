//! Whole documents with mistakes, and what is said about them.

use std::collections::BTreeMap;

use super::drafts::{Draft, Labelled, Short, Strict, Worded};
use super::*;
use crate::units::Percent;

const SOUND: &str = "\
version: 1
experiment: slow-inventory
owner: checkout-team   # whoever answers
slice: { at: front, treatment: 10%, carry: auto }
inject:
  at: inventory
  faults:
    - latency: { delay: 1s, jitter: 50ms }
    - error:
        status: 503
steady_state:
  - name: orders succeed
    error_rate: { max: 2%, max_increase: 1pp }
  - name: \"orders are \\\"quick\\\"\"
workers: ${WORKERS:-2}
labels: { on: a, 503: b, true: c, no: d, 0x1F: e, \"x y\": f }
baseline: { at_most: 10m }
";

fn unset(_: &str) -> Option<String> {
    None
}

fn draft(text: &str) -> Reading<Draft> {
    read("a.yaml", text, &unset)
}

/// Every problem in a line of its own: place, message, help.
fn said<T>(reading: &Reading<T>) -> Vec<String> {
    let help = |problem: &Problem| problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    reading.problems.list().iter().map(|p| format!("{}:{} {}{}", p.line, p.column, p.message, help(p))).collect()
}

#[test]
fn every_mistake_of_a_file_is_named() {
    let reading = draft(include_str!("mistakes.yaml"));
    assert!(reading.value.is_none());
    insta::assert_snapshot!(reading.problems);
}

#[test]
fn a_sound_document_becomes_its_value() {
    let Reading { value, problems } = draft(SOUND);
    assert!(problems.is_empty(), "{problems}");
    let draft = value.unwrap();
    assert_eq!(draft.workers, Some(2));
    assert_eq!(draft.steady_state[1].name.as_deref(), Some("orders are \"quick\""));
    assert_eq!(draft.labels.keys().collect::<Vec<_>>(), ["0x1F", "503", "no", "on", "true", "x y"]);
    let slice: Percent = "10%".parse().unwrap();
    assert_eq!((draft.slice.at.as_str(), draft.slice.treatment), ("front", Some(slice)));
}

#[test]
fn what_is_no_document_is_one_problem() {
    let deep = "[".repeat(100);
    let blocks: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let large = format!("a: {}", "x".repeat(1 << 20));
    let mut nested = "a: &a [[[[[[[[[[]]]]]]]]]]\n".to_owned();
    let nodes = format!("a: [{}]", "x,".repeat(30_000));
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, inner) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        nested += &format!("{name}: &{name} [[[[[[[[[[*{inner}]]]]]]]]]]\n");
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{inner}"); 9].join(","));
    }
    let file = "no document of ours is that large: is it the right file?";
    for (text, expected) in [
        ("", "1:1 the document is empty (write at least its first key)".to_owned()),
        ("# nothing\n\n", "1:1 the document is empty (write at least its first key)".to_owned()),
        ("just words", "1:1 expected a mapping, not `just words`".to_owned()),
        ("- a", "1:1 expected a mapping, not a list".to_owned()),
        ("a: [\n", "1:4 unclosed bracket '['".to_owned()),
        ("a: b: c", "1:5 mapping values are not allowed in this context".to_owned()),
        ("a: 'x\n\n", "1:6 invalid indentation in multiline quoted scalar".to_owned()),
        ("a:\n\t- b\n", "2:2 tabs disallowed within this context (block indentation)".to_owned()),
        ("a: &a [*a]", "1:8 recursive reference not allowed here".to_owned()),
        ("a: !x 1", "1:7 unsupported tag `!x`".to_owned()),
        ("~: a", "1:1 a key must be text (write it in quotes)".to_owned()),
        ("? [a]\n: b", "1:3 a key must be text (write it in quotes)".to_owned()),
        ("path: */x", "1:7 there is no anchor of this name (a text that begins with `*` needs quotes)".to_owned()),
        (
            "a: { b: ${X} }",
            "1:10 while parsing a flow mapping, did not find expected ',' or '}' \
             (within `{ }` or `[ ]` a text with `${NAME}` needs quotes)"
                .to_owned(),
        ),
        (
            "a: b\n---\nc: d\n",
            "3:1 a second document begins here (write one document in a file; what follows `---` needs its own)"
                .to_owned(),
        ),
        (&deep, format!("1:25 the document is nested too deeply ({file})")),
        (&blocks, format!("25:25 the document is nested too deeply ({file})")),
        (&nested, format!("3:17 the document is nested too deeply ({file})")),
        (&large, format!("1:1 the document is larger than 1 MiB ({file})")),
        (&nodes, format!("1:39999 the document is too large ({file})")),
        (&bomb, format!("5:11 the document is too large ({file})")),
    ] {
        let reading = draft(text);
        assert!(reading.value.is_none());
        assert_eq!(said(&reading), [expected], "{}", text.chars().take(200).collect::<String>());
    }
}

#[test]
fn places_count_characters_whatever_ends_the_lines() {
    for end in ["\n", "\r\n", "\r"] {
        for start in ["", "\u{feff}"] {
            let text = format!("{start}# äöü{end}{end}labels: {{ größe: \"ä🦀\", k: 5 }}{end}owner: [a]{end}");
            let reading = read::<Labelled>("a.yaml", &text, &unset);
            let expected =
                ["3:27 expected text, not `5` (write it in quotes: `\"5\"`)", "4:8 expected text, not a list"];
            assert_eq!(said(&reading), expected, "{text:?}");
        }
        // What is missed at the end is shown behind the last thing that is there.
        let text = format!("a: 1{end}b: {{ c: 1{end}{end}");
        let reading = read::<Labelled>("a.yaml", &text, &unset);
        assert!(said(&reading).iter().all(|problem| problem.starts_with("2:")), "{:?}", said(&reading));
    }
}

#[test]
fn a_caret_stands_under_what_is_meant_and_nothing_harms_the_terminal() {
    let long = format!("labels: {{ a: {}, b: 7, c: {} }}", "x".repeat(300), "y".repeat(300));
    let text = format!("{long}\n\"\\e[31m\u{202e}\":\tred\nöwner:\t\"\u{200b}\"\n");
    let Reading { problems, .. } = read::<Labelled>("a\u{1b}[2J.yaml", &text, &unset);
    let shown = problems.to_string();
    insta::assert_snapshot!(shown);
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    let json = serde_json::to_value(problems.list()).unwrap();
    assert_eq!((&json[0]["line"], &json[0]["column"], &json[0]["severity"]), (&1.into(), &319.into(), &"error".into()));
}

#[test]
fn aliases_are_expanded_and_shown_where_they_are_used_and_merge_keys_are_refused() {
    let reading = read::<Labelled>("a.yaml", "labels: &l { a: b }\nowner: *l\n", &unset);
    assert_eq!(said(&reading), ["2:8 expected text, not a mapping"]);
    let reading = read::<Labelled>("a.yaml", "list: { name: one }", &unset);
    assert_eq!(
        said(&reading),
        ["1:7 expected a list, not a mapping (a list has `-` before each entry, or stands in `[ ]`)"]
    );
    let reading = read::<Labelled>("a.yaml", "labels: { a: &x b, c: *x }\n", &unset);
    assert_eq!(reading.value.unwrap().labels["c"], "b");
    let reading = read::<Labelled>("a.yaml", "labels:\n  <<: { a: b }\n  c: d\n", &unset);
    assert_eq!(said(&reading), ["2:3 merge keys (`<<`) are not taken here (write out what it stands for)"]);
    assert_eq!(reading.value.unwrap().labels.len(), 1);
}

#[test]
fn duplicate_keys_are_found_wherever_they_are_and_hide_nothing_else() {
    let text = "owner: a\nowner: b\nlabels:\n  x: a\n  'x': b\nother: { y: 1, y: 2 }\n";
    let reading = read::<Labelled>("a.yaml", text, &unset);
    assert_eq!(
        said(&reading),
        [
            "2:1 duplicate key `owner` in the document (it is first written in line 1)",
            "5:3 duplicate key `x` in `labels` (it is first written in line 4)",
            "6:1 unknown key `other` in the document (known here: `list`)",
            "6:16 duplicate key `y` in `other` (it is first written in line 6)",
        ]
    );
    assert_eq!(reading.value.unwrap().owner.as_deref(), Some("a"));
}

#[test]
fn variables_stand_for_texts_numbers_and_booleans() {
    let variables = |name: &str| match name {
        "TWO" => Some("2".to_owned()),
        "YES" => Some("true".to_owned()),
        "SHARE" => Some("5".to_owned()),
        "NAME" => Some("2".to_owned()),
        _ => None,
    };
    let text = SOUND
        .replace("${WORKERS:-2}\n", "\"${TWO}\"\nown: ${YES}\n")
        .replace("10%,", "'${SHARE}%',")
        .replace("slow-inventory", "${NAME}");
    let Reading { value, problems } = read::<Draft>("a.yaml", &text, &variables);
    assert!(problems.is_empty(), "{problems}");
    let draft = value.unwrap();
    assert_eq!((draft.experiment.as_str(), draft.workers, draft.own), ("2", Some(2), Some(true)));
    assert_eq!(draft.slice.treatment, "5%".parse().ok());

    let text = "labels:\n  a: é${ONE}${TWO}\n  b: \"$${ONE}\"\n  ${TWO}: c\n  d: ${ONE\n  e: ${ONE:?}\nowner: ${ONE}\n";
    let reading = read::<Labelled>("a.yaml", text, &variables);
    let way = "write `${NAME}` or `${NAME:-default}`, or `$${` for a plain `${`";
    assert_eq!(
        said(&reading),
        [
            "2:7 the variable `ONE` is not set (set it, or give it a default: `${ONE:-…}`)".to_owned(),
            format!("5:6 `${{ONE` is not a variable ({way})"),
            format!("6:6 `${{ONE:?}}` is not a variable ({way})"),
            "7:8 the variable `ONE` is not set (set it, or give it a default: `${ONE:-…}`)".to_owned(),
        ]
    );
    let labels = reading.value.unwrap().labels;
    assert_eq!(labels, BTreeMap::from([("b".to_owned(), "${ONE}".to_owned()), ("${TWO}".to_owned(), "c".to_owned())]));
}

#[test]
fn what_a_variable_stands_for_is_never_shown() {
    let secret = |_: &str| Some("hunter2".to_owned());
    let text = "version: ${S}\nexperiment: a\nworkers: ${S}\nown: ${S}\nbaseline: ${S}\nslice: { at: a, treatment: \"${S}\", carry: '${S}' }\n\
                inject: ${S}\nsteady_state: ${S}\nlabels: '${S}'\n";
    let reading = read::<Draft>("a.yaml", text, &secret);
    let (shown, debug) = (reading.problems.to_string(), format!("{:?}", reading.problems));
    assert_eq!(reading.problems.list().len(), 9, "{shown}");
    assert!(!shown.contains("hunter2") && !debug.contains("hunter2"), "{shown}{debug}");
    // Not even where only serde knows that the value is wrong.
    let reading = read::<Strict>("a.yaml", "inner: [{ day: 2027-01-31 }, { day: '${S}' }]", &secret);
    assert!(reading.value.is_none());
    assert_eq!(said(&reading), ["1:37 `${S}` is not a day"]);
}

#[test]
fn what_only_serde_refuses_is_placed_too() {
    let reading = read::<Strict>("a.yaml", "inner:\n  - day: 2027-01-31\n  - day: tomorrow\n", &unset);
    assert_eq!(said(&reading), ["3:10 `tomorrow` is not a day"]);
    // Behind an entry that is left out, too.
    let reading = read::<Strict>("a.yaml", "inner:\n  - day: 5\n  - day: tomorrow\n", &unset);
    assert_eq!(
        said(&reading),
        ["2:10 expected text, not `5` (write it in quotes: `\"5\"`)", "3:10 `tomorrow` is not a day"]
    );
}

#[test]
fn later_errors_find_their_places_and_do_not_repeat_what_is_known() {
    let text = "\
owner: a
labels: { x/y: b, c~d: e, f: 7 }
list:
  - { name: one }
  - { nme: two }
  - { name: three }
  - name: four
";
    let mut reading = read::<Labelled>("a.yaml", text, &unset);
    let value = reading.value.take().unwrap();
    assert_eq!(value.list.len(), 3, "the entry without a name is left out");
    let problems = &mut reading.problems;
    for known in ["/labels/f", "/labels", "/labels/f/x", "/list"] {
        problems.error(known, format!("repeats {known}"), None);
    }
    problems.error("/labels/x~1y", "value of x/y", None);
    problems.error_at_key("/labels/c~0d", "key of c~d", None);
    problems.error("/list/1/name", "value of three", None);
    problems.error_at_key("/list/2/name", "key of four", None);
    problems.error("/list/2", "the last entry", None);
    problems.error("/list/2/missing", "missing in the last entry", None);
    problems.error("/missing", "missing in the document", None);
    problems.warn("/owner", "a warning", Some("with help".to_owned()));
    problems.error("", "the whole document", None);
    problems.error("", "the whole document", None);
    assert_eq!(
        said(&reading),
        [
            "1:1 missing in the document",
            "1:1 the whole document",
            "1:8 a warning (with help)",
            "2:16 value of x/y",
            "2:19 key of c~d",
            "2:30 expected text, not `7` (write it in quotes: `\"7\"`)",
            "5:7 unknown key `nme` in `list[1]` (did you mean `name`?)",
            "6:13 value of three",
            "7:5 key of four",
            "7:5 the last entry",
            "7:5 missing in the last entry",
        ]
    );
    assert_eq!((reading.problems.warnings().count(), reading.problems.errors().count()), (1, 10));
}

#[test]
fn a_warning_is_no_error() {
    let mut problems = read::<Labelled>("a.yaml", "owner: a", &unset).problems;
    assert!(problems.is_empty());
    problems.warn("/owner", "nobody knows them", None);
    assert!(!problems.is_empty() && !problems.has_errors());
    assert_eq!(problems.to_string(), "a.yaml:1:8: warning: nobody knows them\n  |\n1 | owner: a\n  |        ^");
}

#[test]
fn short_forms_take_each_of_their_shapes_and_name_all_of_them() {
    for text in ["auto", "10s", "7", "{ at_most: 10m }", "[1s, 2s]", "{ from: 1s, to: 2s }"] {
        let reading = read::<Short>("a.yaml", &format!("length: {text}"), &unset);
        assert!(reading.value.is_some() && reading.problems.is_empty(), "{text}: {}", reading.problems);
    }
    for (text, expected) in [
        (
            "atuo",
            "expected `auto`, a length of time such as `250ms`, a whole number, a mapping with `at_most`, a mapping with `from` and `to` or a list, not `atuo` (did you mean `auto`?)",
        ),
        ("10", ""),
        ("10q", "write a length of time with its unit, as in `250ms`, `1.5s` or `2m30s`, not `10q` (or write `auto`)"),
        ("99", "expected a number between 1 and 10, not `99` (or write `auto`)"),
        ("2.5", "write a length of time with its unit, as in `250ms`, `1.5s` or `2m30s`, not `2.5` (or write `auto`)"),
        ("{ at_mots: 10m }", "unknown key `at_mots` in `length` (did you mean `at_most`?)"),
        ("{ from: 1s }", "missing key `to` in `length`"),
        ("[1s, 2]", "write a length of time with its unit, as in `250ms`, `1.5s` or `2m30s`, not `2`"),
        ("[]", "at least 1 entry must be in this list, not 0"),
        (
            "",
            "`length` has no value (remove the key or give it a value: `auto`, a length of time such as `250ms`, a whole number, a mapping with `at_most`, a mapping with `from` and `to` or a list)",
        ),
    ] {
        let reading = read::<Short>("a.yaml", &format!("length: {text}"), &unset);
        let message = said(&reading).join("\n");
        assert_eq!(message.split_once(' ').map_or("", |(_, message)| message), expected, "{text}");
    }
}

#[test]
fn numbers_are_told_their_bounds_but_not_those_of_the_machine() {
    for (workers, expected) in [
        ("-1", "expected a number of at least 0, not `-1`"),
        ("4294967296", "expected a number between 0 and 4294967295, not `4294967296`"),
        ("18446744073709551616", "expected a whole number, not `18446744073709551616`"),
        ("1.5", "expected a whole number, not `1.5`"),
        (".inf", "expected a whole number, not `.inf`"),
        ("1_000", "expected a whole number, not `1_000`"),
        ("010", "expected a whole number, not the text `010`"),
        ("\"10\"", "expected a whole number, not the text `10` (write it without quotes)"),
    ] {
        let text = SOUND.replace("${WORKERS:-2}", workers);
        assert_eq!(said(&draft(&text)), [format!("15:10 {expected}")], "{workers}");
    }
}

#[test]
fn a_schema_can_say_it_in_its_own_words() {
    let reading = read::<Worded>("a.yaml", "version: 2\nwho: [1]\nname: Not So\n", &unset);
    assert_eq!(
        said(&reading),
        [
            "1:10 this pratfall reads `version: 1`",
            "2:6 expected `trace`, `request` or `header:NAME`, not a list",
            "3:7 a name has small letters and hyphens",
        ]
    );
}

#[test]
fn many_problems_are_counted_and_not_all_kept() {
    let text = format!("labels: {{ {} }}", (0..5000).map(|n| format!("k{n}: 5")).collect::<Vec<_>>().join(", "));
    let mut problems = read::<Labelled>("a.yaml", &text, &unset).problems;
    assert_eq!(problems.list().len(), 200);
    problems.error("/owner", "one more", None);
    assert!(problems.to_string().ends_with("\n\nand 4801 more problems"));
}

#[test]
fn top_level_keys_tell_what_a_document_is() {
    assert_eq!(top_level_keys(SOUND)[..3], ["version", "experiment", "owner"]);
    assert_eq!(top_level_keys("\u{feff}on: [broken]\r\nsystem: shop"), ["on", "system"]);
    for text in ["", "a: [", "- a", "5", "a: b\n---\nc: d"] {
        assert!(top_level_keys(text).is_empty(), "{text}");
    }
}

#[test]
fn nothing_that_is_written_makes_it_panic_or_be_silent() {
    use rand::{RngExt as _, SeedableRng as _};
    let mut chance = rand::rngs::SmallRng::seed_from_u64(7);
    let pieces = [
        "{", "}", "[", "]", ":", "- ", "\n", "\r", "\t", "  ", "'", "\"", "#", "&a ", "*a", "<<: ", "? ", "!!str ",
        "${", "}", "|", ">", "%", "---\n", "é", "🦀", "\u{feff}", "\0", "1e999", "null", "~", "0x", ".inf",
    ];
    let sources = [SOUND, include_str!("mistakes.yaml")];
    let mut sound = 0;
    for round in 0..1000 {
        let mut text: Vec<char> = sources[round % 2].chars().collect();
        for _ in 0..chance.random_range(1..4) {
            let at = chance.random_range(0..text.len());
            match chance.random_range(0..4) {
                0 => drop(text.remove(at)),
                1 => text.truncate(at.max(1)),
                2 => drop(text.splice(at..at, pieces[chance.random_range(0..pieces.len())].chars())),
                _ => {
                    let end = (at + chance.random_range(0..40)).min(text.len());
                    let copy = text[at..end].to_vec();
                    drop(text.splice(at..at, copy));
                }
            }
        }
        let text: String = text.into_iter().collect();
        let Reading { value, mut problems } = draft(&text);
        assert!(value.is_some() || problems.has_errors(), "{text}");
        sound += usize::from(problems.is_empty());
        problems.error("/steady_state/0/error_rate", "later", None);
        let lines = text.replace("\r\n", "\n").matches(['\n', '\r']).count() as u32 + 1;
        for problem in problems.list() {
            assert!((1..=lines).contains(&problem.line) && !problem.to_string().is_empty(), "{problem}\n{text}");
        }
        top_level_keys(&text);
    }
    assert!(sound > 30, "some mutations leave a document sound: {sound}");
}

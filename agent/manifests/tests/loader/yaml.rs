//! YAML as Kubernetes reads it.

use serde_json::{Value as Json, json};
use weir_manifests::{Value, yaml};

/// Documents as JSON; an error is `LINE: text`.
fn read(text: &str) -> Vec<Result<Json, String>> {
    let text = yaml::decode(text.as_bytes()).unwrap();
    yaml::documents(&text)
        .into_iter()
        .map(|document| match document.value {
            Ok(value) => Ok(value.into()),
            Err((line, text)) => Err(format!("{line}: {text}")),
        })
        .collect()
}

#[track_caller]
fn one(text: &str) -> Json {
    let mut all = read(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).unwrap()
}

#[test]
fn scalars_follow_yaml_1_1_and_quotes_make_text() {
    assert_eq!(
        one(
            "a: yes\nb: off\nc: 'yes'\nd: \"80\"\ne: 80\nf: 0755\ng: ~\nh:\ni: 1.5\nj: 2026-11-23\nk: 100m\n"
        ),
        json!({"a": true, "b": false, "c": "yes", "d": "80", "e": 80, "f": 493, "g": null, "h": null,
               "i": 1.5, "j": "2026-11-23", "k": "100m"})
    );
    assert_eq!(
        one("a: !!str 80\nb: !!int \"80\"\nc: !custom x\n"),
        json!({"a": "80", "b": 80, "c": "x"})
    );
}

#[test]
fn keys_become_text() {
    assert_eq!(
        one("80: a\nyes: b\nnull: c\n"),
        json!({"80": "a", "true": "b", "null": "c"})
    );
}

#[test]
fn multi_line_text_keeps_or_folds_its_lines() {
    assert_eq!(
        one("a: |\n  x\n   y\n\n  z\nb: >-\n  x\n  y\nc: |+\n  x\n\nd: plain\n  goes on\n"),
        json!({"a": "x\n y\n\nz\n", "b": "x y", "c": "x\n\n", "d": "plain goes on"})
    );
}

#[test]
fn anchors_and_merge_keys_are_resolved_and_own_keys_win() {
    assert_eq!(
        one(
            "base: &b {x: 1, v: 2}\nmore: &m {v: 3, z: 4}\none: {<<: *b, v: 9}\nboth:\n  <<: [*b, *m]\n  k: *b\nquoted: {\"<<\": 1}\n"
        ),
        json!({"base": {"x": 1, "v": 2}, "more": {"v": 3, "z": 4}, "one": {"x": 1, "v": 9},
               "both": {"k": {"x": 1, "v": 2}, "x": 1, "v": 2, "z": 4}, "quoted": {"<<": 1}})
    );
}

#[test]
fn aliases_that_explode_are_an_error() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let alias = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", [alias.as_str(); 10].join(", "));
    }
    let all = read(&text);
    assert!(
        all[0]
            .as_ref()
            .unwrap_err()
            .contains("aliases stand for more than"),
        "{all:?}"
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let all = read(&format!("a: {}{}", "[".repeat(5000), "]".repeat(5000)));
    assert!(all[0].is_err());
}

#[test]
fn documents_are_cut_at_separators_with_comments_directives_and_ends() {
    assert_eq!(
        read(
            "# only a comment\n---\n--- # second\na: 1\n---\t\n...\n%YAML 1.1\n---\nb: 2\n...\n---\n---x: 3\n--- {c: 4}\n---\n"
        ),
        [
            json!({"a": 1}),
            json!({"b": 2}),
            json!({"---x": 3}),
            json!({"c": 4})
        ]
        .map(Ok)
    );
    assert_eq!(read("a: |\n  ---\n  x\n"), [Ok(json!({"a": "---\nx\n"}))]);
    assert_eq!(read(""), []);
}

#[test]
fn crlf_and_byte_order_marks_are_read() {
    let wanted = json!({"a": "x\ny\n", "b": [1, 2]});
    let text = "a: |\n  x\n  y\nb:\n- 1\n- 2\n";
    let crlf = text.replace('\n', "\r\n");
    assert_eq!(one(&crlf), wanted);
    assert_eq!(one(&format!("\u{feff}{text}")), wanted);
    for big in [false, true] {
        let unit = |u: u16| {
            if big {
                u.to_be_bytes()
            } else {
                u.to_le_bytes()
            }
        };
        let units = format!("\u{feff}{crlf}")
            .encode_utf16()
            .flat_map(unit)
            .collect::<Vec<u8>>();
        let text = yaml::decode(&units).unwrap();
        let value: Json = yaml::documents(&text).remove(0).value.unwrap().into();
        assert_eq!(value, wanted);
    }
}

#[test]
fn bytes_that_are_no_text_are_an_error_with_a_line() {
    assert_eq!(yaml::decode(b"a: 1\nb: \xff\n").unwrap_err().0, 2);
    assert!(yaml::decode(&[0xff, 0xfe, 0x00, 0xd8]).is_err());
    assert!(yaml::decode(&[0xff, 0xfe, 0x61]).is_err());
}

#[test]
fn errors_name_the_line_in_the_file_and_other_documents_still_count() {
    let all = read(
        "a: 1\n---\nb: [1,\nc: 2\n---\nd: \"open\n---\ne: 5\n---\nf:\n\tg: 6\n---\ng: *nix\n---\nh: 8\n",
    );
    let good: Vec<_> = all
        .iter()
        .filter_map(|d| d.as_ref().ok())
        .cloned()
        .collect();
    assert_eq!(good, [json!({"a": 1}), json!({"e": 5}), json!({"h": 8})]);
    let lines: Vec<usize> = all
        .iter()
        .filter_map(|d| d.as_ref().err())
        .map(|e| e.split(':').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    for (line, document) in lines.iter().zip([2..=5, 5..=7, 9..=11, 12..=13]) {
        assert!(document.contains(line), "{all:?}");
    }
}

#[test]
fn json_may_follow_json_and_tabs_may_indent_it() {
    assert_eq!(
        read("{\n\t\"a\": 1\n}\n\n{\"b\": \"yes\"}\n[3]"),
        [json!({"a": 1}), json!({"b": "yes"}), json!([3])].map(Ok)
    );
    // A flow mapping is no JSON.
    assert_eq!(one("{a: yes}"), json!({"a": true}));
    assert!(read("{\"a\": ]\n{\"b\": 1}")[0].is_err());
}

#[test]
fn keys_keep_their_order_and_duplicates_are_told() {
    let text = "z: 1\na: 2\nm: 3\na: 4\n";
    let document = yaml::documents(text).remove(0);
    let value: Value = document.value.unwrap();
    assert_eq!(
        serde_json::to_string(&value).unwrap(),
        r#"{"z":1,"a":4,"m":3}"#
    );
    assert_eq!(document.duplicate_keys, [(4, "a".to_owned())]);
}

#[test]
fn a_json_document_between_others_is_what_yaml_makes_of_it() {
    let wide: String = (0..40).map(|n| format!(r#""k{n}": {n}, "#)).collect();
    let texts = [
        r#"{"a": "x\n\"\u00fc\"", "b": [1, -2, {}, []], "c": null, "d": {"80": true}}"#,
        r#"{"a": 1.5, "b": 1e3, "c": 18446744073709551616, "d": -0}"#,
        r#"{"a": 1, "b": {"x": 1, "x": 2}}"#,
        &format!(r#"{{{wide}"k7": "again"}}"#),
        r#"{"a": &x 1, "b": *x, plain: yes, 'c': 012}"#,
        "{\"a\": \"two\n  lines\"}",
        "{\"a\": 1} # says nothing",
        r#"{"a": 1,}"#,
    ];
    for text in texts {
        let alone = format!("first: 1\n---\n\n{text}\n---\nlast: 1\n");
        // A comment is not JSON.
        let commented = format!("first: 1\n---\n\n{text} # Comment\n---\nlast: 1\n");
        let documents = yaml::documents(&alone);
        assert_eq!(documents, yaml::documents(&commented), "{text}");
        assert_eq!(documents.len(), 3, "{text}");
        assert_eq!(documents[1].line, 4, "{text}");
    }
}

//! What an unquoted scalar means to Kubernetes, which reads YAML 1.1 as go-yaml v2 does
//! (sigs.k8s.io/yaml, `resolve.go`): `yes`, `on` and `y` are booleans, `0755` is octal,
//! timestamps stay text.

use serde_json::Number;

use crate::value::Value;

/// The value of an unquoted scalar without a tag.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    match number(text) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

/// An integer in any of Go's notations, or a decimal fraction.
pub(crate) fn number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| float(&plain))
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // `from_str_radix` takes a sign of its own.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        return Some(Number::from(magnitude));
    }
    let value = i64::try_from(-i128::from(magnitude)).ok()?;
    Some(Number::from(value))
}

/// Digits with one dot and an exponent at most. A whole number becomes an integer, as Go's JSON
/// writes it.
fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let exponent_is_good = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    let mantissa_is_good =
        digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    if !mantissa_is_good || !exponent_is_good {
        return None;
    }
    let value: f64 = text.strip_prefix('+').unwrap_or(text).parse().ok()?;
    // Up to 2^53 every whole float is an exact integer.
    if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn resolved(text: &str) -> Json {
        resolve(text).into()
    }

    #[test]
    fn yaml_1_1_booleans_and_nulls() {
        for yes in [
            "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE",
        ] {
            assert_eq!(resolved(yes), json!(true), "{yes}");
        }
        for no in [
            "n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE",
        ] {
            assert_eq!(resolved(no), json!(false), "{no}");
        }
        for null in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolved(null), json!(null), "{null:?}");
        }
        for text in ["yEs", "tRUE", "nULL", "onn", "none"] {
            assert_eq!(resolved(text), json!(text));
        }
    }

    #[test]
    fn integers_in_all_notations() {
        for (text, value) in [
            ("0", 0),
            ("80", 80),
            ("+80", 80),
            ("-80", -80),
            ("1_000", 1000),
            ("0x1F", 31),
            ("-0x1f", -31),
            ("0755", 493),
            ("0o755", 493),
            ("0b101", 5),
        ] {
            assert_eq!(resolved(text), json!(value), "{text}");
        }
        assert_eq!(resolved("18446744073709551615"), json!(u64::MAX));
        assert_eq!(resolved("-9223372036854775808"), json!(i64::MIN));
    }

    #[test]
    fn fractions_and_whole_floats() {
        assert_eq!(resolved("1.5"), json!(1.5));
        assert_eq!(resolved("-.5"), json!(-0.5));
        assert_eq!(resolved("8.0"), json!(8));
        assert_eq!(resolved("1e3"), json!(1000));
        // Not octal, so Go reads a float.
        assert_eq!(resolved("08"), json!(8));
    }

    #[test]
    fn what_looks_like_a_number_and_is_none_stays_text() {
        for text in [
            "1.2.3.4",
            "10.0.0.0/8",
            "8080-tcp",
            "1e",
            "0x",
            "0xzz",
            "-",
            "+",
            ".",
            "1:30",
            "2026-11-23",
            "100m",
            "1Gi",
            "--5",
            "+-5",
            "0o9",
            "fd00::1",
            "::1",
            "1e5e5",
            ".e1",
            "0b12",
        ] {
            assert_eq!(resolved(text), json!(text), "{text}");
        }
    }
}

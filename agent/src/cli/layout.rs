//! Lines that fit.

/// Most characters of a line, unless all is asked for.
pub(super) const WIDTH: usize = 100;

/// At most [`WIDTH`] characters, unless all is asked for.
pub(super) fn cut(line: &str, verbose: bool) -> String {
    if verbose || line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(WIDTH - 1).collect();
    short.push('…');
    short
}

/// Lines of at most [`WIDTH`] characters, unless all is asked for; what goes on is indented more.
pub(super) fn wrap(line: &str, verbose: bool) -> Vec<String> {
    let indent = line.len() - line.trim_start().len();
    let mut lines = Vec::new();
    let mut rest = line.to_owned();
    while !verbose && rest.chars().count() > WIDTH {
        let end = rest
            .char_indices()
            .nth(WIDTH)
            .map_or(rest.len(), |(i, _)| i);
        let start = rest.len() - rest.trim_start().len();
        // Before the last space that fits; a word that is too long is cut as it is.
        let after = rest[end..]
            .chars()
            .next()
            .map_or(end, |c| end + c.len_utf8());
        let space = rest[start..after].rfind(' ').map(|i| start + i);
        let at = space.filter(|at| *at > start).unwrap_or(end);
        let next = format!("{:1$}{2}", "", indent + 4, rest[at..].trim_start());
        rest.truncate(at);
        lines.push(std::mem::replace(&mut rest, next));
    }
    lines.push(rest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_indented_and_lose_nothing() {
        let words: Vec<String> = (0..60).map(|i| format!("word{i}")).collect();
        let line = format!("  {}", words.join(" "));
        let lines = wrap(&line, false);
        assert!(lines.len() > 3);
        assert!(lines.iter().all(|l| l.chars().count() <= WIDTH));
        assert!(lines[1].starts_with("      word"));
        let back: Vec<&str> = lines.iter().flat_map(|l| l.split_whitespace()).collect();
        assert_eq!(back, words);
        assert_eq!(wrap(&line, true), [line]);
    }

    #[test]
    fn words_longer_than_a_line_and_letters_of_many_bytes_are_cut_between_letters() {
        for word in ["x".repeat(350), "ß…".repeat(170)] {
            let lines = wrap(&format!("    {word} end"), false);
            assert!(
                lines.iter().all(|l| l.chars().count() <= WIDTH),
                "{lines:?}"
            );
            let back: String = lines.iter().map(|l| l.trim()).collect();
            assert_eq!(back.replace(' ', ""), format!("{word}end"));
        }
    }
}

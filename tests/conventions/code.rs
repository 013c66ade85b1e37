//! Rust text without what is not code.

/// The text with comments and the contents of string literals blanked out; line breaks stay.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let length = literal(rest, at.checked_sub(1).map(|before| chars[before]));
        if length == 0 {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(rest[..length].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    out
}

/// How many characters the comment or literal at the beginning of `rest` has; 0: there is none.
fn literal(rest: &[char], before: Option<char>) -> usize {
    let until = |end: &str, from: usize| {
        let end: Vec<char> = end.chars().collect();
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |index| from + index + end.len())
    };
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match rest {
        ['/', '/', ..] => until("\n", 0) - usize::from(rest.contains(&'\n')),
        ['/', '*', ..] => until("*/", 2),
        ['r', '"' | '#', ..] if !in_word => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return 0;
            }
            until(&format!("\"{}", "#".repeat(hashes)), 2 + hashes)
        }
        ['"', ..] => escaped_end(rest, '"'),
        // A character, not a lifetime.
        ['\'', '\\', ..] => escaped_end(rest, '\''),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn escaped_end(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

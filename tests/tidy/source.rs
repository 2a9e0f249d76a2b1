//! The project's files, and Rust source with everything that is not code blanked out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// One Rust file below `src`.
pub struct Source {
    /// path from the project's root
    pub path: String,
    /// as it stands
    pub text: String,
    /// the same with comments and the contents of literals replaced by spaces: lines and columns stay
    pub code: String,
}

/// Every Rust file below `src`, in order.
pub static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    files.iter().map(|file| Source::read(file)).collect()
});

impl Source {
    fn read(file: &Path) -> Source {
        let text = read(file);
        let code = blank(&text);
        let path = file.strip_prefix(root()).expect("a file of the project").to_string_lossy().into_owned();
        Source { path, text, code }
    }

    /// The top-level module it belongs to: `path` for `src/path/engine.rs`, `bin` for programs, `lib` for the map.
    pub fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").expect("a file below src");
        below.split(['/', '.']).next().expect("a name")
    }

    /// Whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// Its code without the modules that are compiled for tests only.
    pub fn shipped(&self) -> String {
        if self.is_test() {
            return String::new();
        }
        let mut code = self.code.clone();
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = item_end(&code, start);
            let blanked = blank_all(&code[start..end]);
            code.replace_range(start..end, &blanked);
        }
        code
    }

    /// `file:line` of a byte.
    pub fn place(&self, at: usize) -> String {
        format!("{}:{}", self.path, self.code[..at].matches('\n').count() + 1)
    }
}

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text.
pub fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Every file under version control or about to be; without git, every file that is not a build's result.
pub fn tracked() -> Vec<PathBuf> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    if let Ok(output) = git
        && output.status.success()
    {
        let names = String::from_utf8(output.stdout).expect("names in UTF-8");
        let files = names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name));
        return files.filter(|file| file.is_file()).collect();
    }
    let mut files = Vec::new();
    walk(root(), &mut files);
    files
}

fn walk(directory: &Path, into: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                walk(&path, into);
            }
        } else {
            into.push(path);
        }
    }
}

/// Where the item that begins at `start` ends: behind its `;` or its closing brace, whichever comes first.
fn item_end(code: &str, start: usize) -> usize {
    let open = code[start..].find(['{', ';']).map_or(code.len(), |at| start + at);
    if code[open..].starts_with('{') { block_end(code, open) } else { (open + 1).min(code.len()) }
}

/// Where the block that opens at `open` ends, behind its closing brace.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn blank_all(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Replaces comments and the contents of literals by spaces, byte for byte.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (kept, len) = match rest {
            [b'/', b'/', ..] => (0, until(rest, b"\n").unwrap_or(rest.len())),
            [b'/', b'*', ..] => (0, comment_len(rest)),
            [b'r', b'"' | b'#', ..] if !continues_word(bytes, at) => raw_len(rest),
            [b'"', ..] => (1, quoted_len(rest)),
            [b'\'', ..] => char_len(rest),
            _ => (1, 1),
        };
        for (offset, &byte) in rest[..len].iter().enumerate() {
            let keep = offset < kept || byte == b'\n' || (kept > 0 && offset + 1 == len);
            out.push(if keep && byte.is_ascii() { byte.into() } else { ' ' });
        }
        at += len;
    }
    out
}

fn until(bytes: &[u8], end: &[u8]) -> Option<usize> {
    bytes.windows(end.len()).position(|window| window == end)
}

fn continues_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') && bytes[at - 1] != b'b'
}

fn comment_len(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

/// How much of what begins with `r` to keep at the front, and its length: a raw string, or only the letter.
fn raw_len(bytes: &[u8]) -> (usize, usize) {
    let hashes = bytes[1..].iter().take_while(|&&byte| byte == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return (1, 1);
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = 2 + hashes;
    let len = until(&bytes[body..], &end).map_or(bytes.len(), |at| body + at + end.len());
    (0, len)
}

fn quoted_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The same for a quote: a character, or the beginning of a lifetime.
fn char_len(bytes: &[u8]) -> (usize, usize) {
    if bytes.get(1) == Some(&b'\\') {
        return (1, 3 + until(&bytes[3.min(bytes.len())..], b"'").map_or(0, |at| at + 1));
    }
    let char_bytes = std::str::from_utf8(&bytes[1..bytes.len().min(5)])
        .map_or_else(|error| error.valid_up_to(), str::len)
        .min(4);
    let first = std::str::from_utf8(&bytes[1..=char_bytes]).ok().and_then(|text| text.chars().next());
    match first {
        Some(char) if bytes.get(1 + char.len_utf8()) == Some(&b'\'') => (1, 2 + char.len_utf8()),
        _ => (1, 1),
    }
}

#[test]
fn literals_and_comments_are_blanked() {
    let code =
        blank("let a = \"{\\\"\"; // }\nlet b = '{'; /* { */ let c: &'static str = r#\"{\"#; fn f<'a>() {}");
    assert_eq!(code.matches(['{', '}']).collect::<String>(), "{}");
    assert!(code.contains("&'static str") && code.contains("fn f<'a>()"), "{code}");
}

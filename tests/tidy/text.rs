//! What stands in committed text, whatever kind of file it is.

use crate::none_found;
use crate::source::{root, tracked};

/// Put together here so that this file does not hold them.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/")];

#[test]
fn no_path_of_somebodys_machine() {
    let mut found = Vec::new();
    for file in tracked() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let name = file.strip_prefix(root()).unwrap_or(&file).display();
        for (number, line) in text.lines().enumerate() {
            for path in MACHINE_PATHS.iter().filter(|path| line.contains(*path)) {
                found.push(format!("{name}:{}: {path}", number + 1));
            }
        }
    }
    none_found("nothing committed names a path of one machine", &found);
}

/// Links between documents lead somewhere.
#[test]
fn links_of_documents_lead_somewhere() {
    let mut found = Vec::new();
    for file in
        tracked().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md"))
    {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let folder = file.parent().unwrap_or(root());
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.starts_with("http")) {
            if !folder.join(target).exists() {
                found.push(format!("{}: {target}", file.strip_prefix(root()).unwrap_or(&file).display()));
            }
        }
    }
    none_found("links of documents lead to files of the project", &found);
}

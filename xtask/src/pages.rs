//! What the pages say of the code is so: whatever they name is there.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use crate::machine;

    /// A backticked word of three parts or more on this page is a test, and nothing else is.
    fn tests_named(page: &str) -> Vec<&str> {
        let words = page.split('`').skip(1).step_by(2);
        let is_name = |word: &&str| {
            word.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'))
                && word.matches('_').count() >= 2
        };
        words.filter(is_name).collect()
    }

    /// File and tests of one row of the list at the end.
    fn row(line: &str) -> Option<(&str, Vec<&str>)> {
        let (file, tests) = line.strip_prefix("* `")?.split_once("`:")?;
        file.ends_with(".rs").then(|| (file, tests_named(tests)))
    }

    /// The tests of a file, by `#[test]` and its like a few lines before.
    fn tests_of(file: &str) -> Vec<String> {
        let text = fs::read_to_string(machine::root().join(file)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let names = lines.iter().enumerate().filter_map(|(at, line)| {
            let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
            let before = lines.get(at.saturating_sub(4)..at)?;
            let name = name.split(['(', '<']).next()?;
            // Inside of `proptest!` they stand like this too.
            before.iter().any(is_test).then(|| name.to_owned())
        });
        names.collect()
    }

    #[test]
    fn every_test_that_the_threat_model_names_is_there() {
        let page = fs::read_to_string(machine::root().join("docs/threat-model.md")).unwrap();
        let (text, list) = page.split_once("## Where the tests are").unwrap();
        let mut listed = BTreeMap::new();
        for (file, tests) in list.lines().filter_map(row) {
            let known = tests_of(file);
            for test in tests {
                assert!(known.iter().any(|name| name == test), "{test} is no test of {file}");
                listed.insert(test, file);
            }
        }
        let named = tests_named(text);
        assert!(named.len() > 50, "{} names", named.len());
        for test in &named {
            assert!(listed.contains_key(test), "{test} is not in the list");
        }
        for (test, file) in &listed {
            assert!(named.contains(test), "{test} of {file} is listed, and nothing is said of it");
        }
    }

    #[test]
    fn every_case_that_the_catalogue_of_bad_input_names_is_there() {
        let folder = machine::root().join("tests/bad_input");
        let page = fs::read_to_string(folder.join("README.md")).unwrap();
        let mut sources = String::new();
        read_all(&folder, &mut sources);
        let cases: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|w| w.starts_with("BI-")).collect();
        assert!(cases.len() > 100, "{} cases", cases.len());
        for case in cases {
            // A group is named by how its cases begin.
            let found = match case.strip_suffix('*') {
                Some(group) => sources.contains(&format!("\"{group}")),
                None => sources.contains(&format!("\"{case}\"")),
            };
            assert!(found, "{case} is on the page and in no test");
        }
    }

    fn read_all(folder: &Path, into: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read_all(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
}

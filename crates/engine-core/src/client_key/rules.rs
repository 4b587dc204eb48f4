//! Rules about what a backup leaves out, made by who knows names only as they were sealed.
//!
//! Such rules divide a path into streams. What they mean is known where the key is, and nobody is told.

use super::{ClientKey, names};
use crate::error::{Error, Result};

/// What a rule would not take for itself.
const SPECIAL: &[char] = &['\\', '*', '?', '[', ']', '{', '}', '!', '#'];

impl ClientKey {
    /// The rules with plain names, each as it is or spelled out below one of `roots`. `Invalid` for
    /// one of names that another key sealed: a stream that takes nothing, where the others leave
    /// something to it, would lose that.
    pub fn open_rules(&self, roots: &[Vec<u8>], rules: &[String]) -> Result<Vec<String>> {
        rules.iter().map(|rule| self.open_rule(roots, rule)).collect()
    }

    fn open_rule(&self, roots: &[Vec<u8>], rule: &str) -> Result<String> {
        let (sign, path) = rule.strip_prefix('!').map_or(("", rule), |path| ("!", path));
        let is_below = |root: &Vec<u8>| {
            let root = root.strip_suffix(b"/").unwrap_or(root);
            path.as_bytes().strip_prefix(root).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        if !path.split('/').any(is_sealed) || !roots.iter().any(is_below) {
            return Ok(rule.to_owned());
        }
        let mut dir = self.root_dir();
        let mut parts = Vec::new();
        for part in path.split('/') {
            if !is_sealed(part) {
                if !part.is_empty() {
                    dir = dir.child(part.as_bytes());
                }
                parts.push(part.to_owned());
                continue;
            }
            let name = self.open_name(&dir, part.as_bytes());
            let name = name.and_then(|name| String::from_utf8(name).ok());
            let name = name.ok_or_else(|| self.not_ours(rule))?;
            dir = dir.child(name.as_bytes());
            parts.push(literal(&name));
        }
        Ok(format!("{sign}{}", parts.join("/")))
    }

    fn not_ours(&self, rule: &str) -> Error {
        Error::Invalid(format!(
            "client key {} did not seal the names in the rule '{rule}'; hint: the path was divided \
             into streams under another key of the same name: call one of them otherwise, and name \
             that in the policy",
            self.id()
        ))
    }
}

fn is_sealed(part: &str) -> bool {
    part.as_bytes().starts_with(names::PREFIX)
}

/// A rule that means this name and nothing else.
fn literal(name: &str) -> String {
    let mut rule = String::with_capacity(name.len());
    for letter in name.chars() {
        if SPECIAL.contains(&letter) {
            rule.push('\\');
        }
        rule.push(letter);
    }
    rule
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scan::rules::Rules;

    fn sealed(key: &ClientKey, path: &str) -> String {
        String::from_utf8(key.seal_path(path.as_bytes())).unwrap()
    }

    /// As a site writes them: the path as the policy has it, what is below as the pool has it.
    fn below(key: &ClientKey, root: &str, path: &str) -> String {
        let whole = sealed(key, &format!("{root}/{path}"));
        let parts: Vec<&str> = whole.split('/').collect();
        format!("{root}/{}", parts[root.split('/').count()..].join("/"))
    }

    #[test]
    fn rules_of_sealed_names_mean_the_plain_ones() {
        let key = ClientKey::derive(&[1; 32]);
        let roots = [b"/srv/data".to_vec()];
        let odd = "a [b] *!# {c}?";
        let rules = [
            "*.tmp".to_owned(),
            "/srv/data/*".to_owned(),
            format!("!{}", below(&key, "/srv/data", odd)),
            format!("!{}/", below(&key, "/srv/data", "x")),
            format!("{}/*", below(&key, "/srv/data", "x")),
            format!("!{}", below(&key, "/srv/data", "x/y")),
        ];
        let open = key.open_rules(&roots, &rules).unwrap();
        assert_eq!(open[..2], rules[..2]);
        assert_eq!(open[3..], ["!/srv/data/x/", "/srv/data/x/*", "!/srv/data/x/y"]);
        let made = Rules::new(&roots[0], &open).unwrap();
        for (path, is_left_out) in
            [(odd, false), ("x", false), ("x/y", false), ("x/z", true), ("a b", true)]
        {
            assert_eq!(made.excluded(path.as_bytes(), true), is_left_out, "{path}");
        }
    }

    #[test]
    fn what_another_key_sealed_or_sealed_elsewhere_is_refused() {
        let (key, other) = (ClientKey::derive(&[1; 32]), ClientKey::derive(&[2; 32]));
        let roots = [b"/srv".to_vec()];
        let refused = |rule: String| {
            let error = key.open_rules(&roots, &[rule]).unwrap_err();
            assert_eq!(error.code(), "invalid");
            assert!(!error.to_string().contains("secret"));
        };
        refused(below(&other, "/srv", "secret"));
        refused(format!("!{}/*", below(&other, "/srv", "secret")));
        refused(below(&key, "/srv", "secret").replace("/srv", "/srv/elsewhere"));
        refused("/srv/sealed:abc".to_owned());
        // What is no rule about a path of the backup is nobody's name.
        for rule in ["sealed:*", "/other/sealed:abc", "a/sealed:abc"] {
            assert_eq!(key.open_rules(&roots, &[rule.to_owned()]).unwrap(), [rule]);
        }
        // For the whole machine every absolute rule is one.
        let whole = [b"/".to_vec()];
        let rule = sealed(&key, "/home");
        assert_eq!(key.open_rules(&whole, &[rule]).unwrap(), ["/home"]);
    }
}

//! `{% generation %}` ... `{% endgeneration %}`: transformers marks with it what the assistant says, for training on that alone.

/// The same template with plain scopes in place of the marked blocks; no line moves.
///
/// A scope and not nothing: what a block sets is forgotten behind it.
pub(super) fn as_scopes(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        // White space may be cut: `{%-`, `{%+`, `-%}`, `+%}`.
        let name_at = tag.find(|c: char| !(c == '-' || c == '+' || c.is_whitespace())).unwrap_or(tag.len());
        let (lead, tail) = tag.split_at(name_at);
        out.push_str(lead);
        let name_len = tail.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(tail.len());
        let (name, after) = tail.split_at(name_len);
        let ends = after.trim_start().trim_start_matches(['-', '+']).starts_with("%}");
        out.push_str(match name {
            "generation" if ends => "with",
            "endgeneration" if ends => "endwith",
            other => other,
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_change() {
        assert_eq!(as_scopes("{%- generation -%}a{% endgeneration %}"), "{%- with -%}a{% endwith %}");
        assert_eq!(as_scopes("{%\ngeneration\n%}"), "{%\nwith\n%}");
        let other = "{% if generation %}{{ generation }}{% endif %}{% set generation = 1 %} generation {%";
        assert_eq!(as_scopes(other), other);
    }
}

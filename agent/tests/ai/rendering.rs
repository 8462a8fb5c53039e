//! Chat templates from strangers, rendered by the agent's own child process.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use roadbed_agent::engine::EngineFault;
use roadbed_agent::engine::rendering::render_by;
use roadbed_compute::template::{ChatTemplate, TemplateText};
use roadbed_compute::{Conversation, Message};

const AGENT: &str = env!("CARGO_BIN_EXE_roadbed-agent");

fn text(source: &str) -> TemplateText {
    TemplateText {
        source: source.to_owned(),
        bos_text: "<s>".to_owned(),
        eos_text: "</s>".to_owned(),
    }
}

fn chat() -> Conversation {
    vec![
        Message::new("system", "Be \u{1f600} brief."),
        Message::new("user", "{{ hello }}\n\"there\""),
    ]
    .into()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

fn render(source: &str) -> Result<String, EngineFault> {
    render_by(Path::new(AGENT), &text(source), &chat(), now())
}

#[test]
fn the_child_renders_what_the_process_itself_would() {
    let sources = [
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}",
        "{{ strftime_now('%Y-%m-%d') }}{{ messages | tojson }}",
        "",
    ];
    for source in sources {
        let own = ChatTemplate::compile(text(source)).unwrap().render(&chat(), now()).unwrap();
        assert_eq!(render(source).unwrap(), own, "{source}");
    }
}

#[test]
fn what_a_template_refuses_is_the_callers_to_read() {
    for (source, words) in
        [("{{ raise_exception('roles must alternate') }}", "alternate"), ("{% if %}", "parse")]
    {
        let EngineFault::BadRequest { reason, .. } = render(source).unwrap_err() else {
            panic!("{source}")
        };
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_template_that_grows_without_end_costs_one_request() {
    let loops = "{% set ns = namespace(x='0123456789') %}{% for i in range(60) %}";
    let hostile = [
        format!("{loops}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}{{{{ ns.x | length }}}}"),
        format!("{loops}{{% set y %}}{{{{ ns.x }}}}{{{{ ns.x }}}}{{% endset %}}{{% set ns.x = y %}}{{% endfor %}}"),
        format!("{loops}{{% set ns.x = ns.x | replace('0', ns.x) %}}{{% endfor %}}"),
        format!("{loops}{{% set ns.x = ns.x * 2 %}}{{% endfor %}}"),
        format!("{loops}{{% set ns.x = [ns.x, ns.x] | join('') %}}{{% endfor %}}"),
        format!("{{% set x = 'ab' %}}{}", "{% set x = x ~ x %}".repeat(60)),
        "{% macro f(n) %}{% set s = f(n - 1) if n else 'x' %}{{ s }}{{ s }}{% endmacro %}{{ f(60) }}".to_owned(),
        "{% for i in range(9999) %}{{ 'x' * 9999999 }}{% endfor %}".to_owned(),
    ];
    for source in &hostile {
        let EngineFault::BadRequest { reason, .. } = render(source).unwrap_err() else {
            panic!("{source}")
        };
        assert!(reason.contains("refused"), "{source}: {reason}");
    }
}

#[test]
fn a_program_that_is_no_agent_is_our_failure() {
    for (program, words) in
        [("/nonexistent/agent", "No such file"), ("/bin/echo", "something else")]
    {
        let fault = render_by(Path::new(program), &text("hi"), &chat(), now()).unwrap_err();
        let EngineFault::Failed { reason } = &fault else { panic!("{program}: {fault}") };
        assert!(reason.contains(words), "{reason}");
    }
}

/// Pieces that are likely to make sense to Jinja in some order.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if m.role == 'user' %}",
        "{% elif x %}",
        "{% else %}",
        "{% endif %}",
        "{% set x = x ~ x %}",
        "{% set x %}",
        "{% endset %}",
        "{{ x }}",
        "{{ m['content'] | trim }}",
        "{{ messages[0:99] }}",
        "{% set ns = namespace(x=messages) %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% macro f(a) %}",
        "{% endmacro %}",
        "{{ f(f(x)) }}",
        "{{ range(99999999) | list }}",
        "{{ messages | tojson(indent=2) }}",
        "{{ 10 ** 400 }}",
        "{{ 1 // 0 }}",
        "{{ 'a'.split('') }}",
        "{{ x.replace('', 'y') }}",
        "{%- break -%}",
        "{{ loop.index }}",
        "{# ",
        " #}",
        "{{",
        "%}",
        "{% raw %}",
        "\u{0}",
        "\u{1f600}",
    ];
    prop_oneof![4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,12}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_template_is_rendered_or_refused(pieces in proptest::collection::vec(piece(), 0..40)) {
        match render(&pieces.concat()) {
            Ok(prompt) => prop_assert!(prompt.len() <= 16 << 20),
            Err(EngineFault::BadRequest { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

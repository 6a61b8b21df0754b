//! What cannot be read or changed ends with the place and a way out, and writes nothing.

use super::{deployment, inject, run};

fn refused(text: &str) -> String {
    let ran = inject(text, &[]);
    assert_eq!((ran.code, &*ran.out), (1, ""), "{}", ran.err);
    ran.err
}

#[test]
fn templates_of_helm_are_to_be_rendered_first() {
    for (line, number) in [
        ("      {{- toYaml .Values.more | nindent 6 }}\n", 14),
        ("      replicas: {{ .Values.replicas }}\n", 14),
    ] {
        let error = refused(&(deployment() + line));
        assert!(error.starts_with(&format!("<stdin>:{}", number / 10)), "{error}");
        assert!(error.contains("helm template . | larder inject -f -"), "{error}");
    }
}

#[test]
fn what_an_alias_shares_is_not_changed() {
    let text = deployment()
        + "        env: &env\n        - name: A\n      - name: other\n        env: *env\n";
    let error = refused(&text);
    assert!(error.contains("an alias (`*`) shares it"), "{error}");
    let merged = deployment()
        .replace("  template:\n", "  x: &x {containers: [{name: a}]}\n  template:\n")
        .replace("      containers:\n", "      <<: *x\n      volumes:\n");
    let error = refused(&merged);
    assert!(error.contains("comes through a merge key"), "{error}");
}

#[test]
fn hostile_texts_end_in_an_error() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let last = format!("*a{}, ", level - 1).repeat(10);
        bomb += &format!("a{level}: &a{level} [{last}]\n");
    }
    assert!(refused(&bomb).contains("aliases multiply"));
    assert!(refused(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))).contains("<stdin>"));
    assert!(refused("a: &a [*a]\n").starts_with("<stdin>:1: "));
    assert!(refused("a: *nowhere\n").starts_with("<stdin>:1: "));
    assert!(refused("a: 'b\n").starts_with("<stdin>:"));
    assert!(
        refused(&(deployment() + "      volumes: []\n      volumes: []\n"))
            .contains("`volumes` is there twice")
    );

    let ran = run(b"a: \xff\n", &["-f", "-"]);
    assert_eq!((ran.code, &*ran.out, &*ran.err), (1, "", "<stdin>: is not UTF-8\n"));
    let ran = run(&vec![b'#'; 17 << 20], &["-f", "-"]);
    assert_eq!((ran.code, &*ran.err), (1, "<stdin>: is larger than 16 MiB: split it\n"));
}

#[test]
fn a_command_line_that_is_wrong_is_64() {
    for arguments in [
        &["-f", "-", "--listen", ":1"][..],
        &["-f", "-", "--config", "x"],
        &[],
        &["-f", "-", "--set", "image"],
    ] {
        assert_eq!(run(b"", arguments).code, 64, "{arguments:?}");
    }
    let help = run(b"", &["--help"]);
    assert_eq!(help.code, 0);
    for part in ["larder inject -f deployment.yaml | kubectl apply -f -", "--check", "memory-limit"]
    {
        assert!(help.out.contains(part), "{part}");
    }
    for part in ["--listen", "--chdir", "--admin"] {
        assert!(!help.out.contains(part), "{part}");
    }
}

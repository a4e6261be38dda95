package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// commands are all commands of the program that do something.
func commands(t *testing.T) []*kong.Node {
	t.Helper()
	parser, err := kong.New(&cli{}, kong.Name("choir"))
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model.Leaves(false)
}

// Every command explains itself with an example that starts with its own name and that the parser takes.
func TestEveryCommandHasAnExample(t *testing.T) {
	for _, leaf := range commands(t) {
		words := strings.Fields(leaf.FullPath())[1:]
		var short []string
		for _, w := range words {
			if w != "run" {
				short = append(short, w)
			}
		}
		out, _, code := choir(t, append(words, "--help")...)
		_, example, found := strings.Cut(out, "Example: ")
		example, _, _ = strings.Cut(strings.Join(strings.Fields(example), " "), " Flags:")
		example, _, _ = strings.Cut(example, " Arguments:")
		if code != exitOK || !found || !strings.HasPrefix(example, "choir "+strings.Join(short, " ")) {
			t.Errorf("choir %s --help: exit code %d, example %q", strings.Join(words, " "), code, example)
			continue
		}
		example, _, _ = strings.Cut(example, " > ")
		if strings.ContainsAny(example, "$;|") {
			continue // for a shell
		}
		parser, err := kong.New(&cli{}, kong.Name("choir"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(strings.Fields(example)[1:]); err != nil {
			t.Errorf("the example %q is not understood: %v", example, err)
		}
	}
}

// A command that does something without a further word explains that; one that only groups others lists them.
func TestHelpOfCommandsWithoutFurtherWords(t *testing.T) {
	for command, want := range map[string][]string{
		"coordinator": {"--bootstrap", "--join", "Example: choir coordinator --bootstrap", "coordinator reseal "},
		"node":        {"--join-file", "Example: choir node --join-file", "node status "},
		"credential":  {"credential create ", "credential revoke "},
	} {
		out, errs, code := choir(t, command, "--help")
		if code != exitOK || errs != "" {
			t.Errorf("choir %s --help: exit code %d: %s", command, code, errs)
		}
		holds(t, "choir "+command+" --help", out, want)
	}
}

// Every command that answers does so for people and for programs. The daemons answer nothing, and completion is a script.
func TestEveryCommandHasTwoOutputs(t *testing.T) {
	silent := []string{"choir coordinator run", "choir node run", "choir completion"}
	for _, leaf := range commands(t) {
		has := slices.ContainsFunc(leaf.Flags, func(f *kong.Flag) bool {
			return f.Name == "output" && f.Short == 'o' && f.Enum == "table,json" && f.Default == "table"
		})
		if path := leaf.FullPath(); has == slices.Contains(silent, path) {
			t.Errorf("%s: has -o table|json: %t", path, has)
		}
	}
}

// The scripts complete every command, and are what the shells understand.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, errs, code := choir(t, "completion", shell)
		if code != exitOK || errs != "" {
			t.Fatalf("%s: exit code %d: %s", shell, code, errs)
		}
		for _, leaf := range commands(t) {
			if !strings.Contains(out, leaf.Name) {
				t.Errorf("%s: %s is not completed", shell, leaf.FullPath())
			}
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		check := exec.Command(path, "-n")
		check.Stdin = strings.NewReader(out)
		if said, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s does not understand its script: %v\n%s", shell, err, said)
		}
	}
	if _, errs, code := choir(t, "completion", "tcsh"); code != exitUsage || !strings.Contains(errs, "bash") {
		t.Errorf("tcsh: exit code %d: %s", code, errs)
	}
}

// In bash, what may follow is offered: commands, then flags and fixed values.
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here")
	}
	script, _, _ := choir(t, "completion", "bash")
	for typed, want := range map[string]string{
		"choir clu":                       "cluster",
		"choir cluster a":                 "approve",
		"choir token create --exp":        "--expiry",
		"choir completion f":              "fish",
		"choir coordinator --boot":        "--bootstrap",
		"choir model pull purchase --var": "--variant",
	} {
		words := strings.Fields(typed)
		probe := script + "\nCOMP_WORDS=(" + typed + ")\nCOMP_CWORD=" + string(rune('0'+len(words)-1)) + "\n_choir\necho \"${COMPREPLY[@]}\"\n"
		out, err := exec.Command(bash, "-c", probe).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%q is completed to %q, want %q: %v", typed, out, want, err)
		}
	}
}

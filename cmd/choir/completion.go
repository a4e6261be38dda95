package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCommand is `choir completion`.
type completionCommand struct {
	Shell string `arg:"" help:"${enum}." enum:"bash,zsh,fish"`
}

// Help is what --help explains.
func (completionCommand) Help() string {
	return `Prints a script for a shell that completes commands, flags and fixed values. It is made from the commands of this binary, so
make it anew after an upgrade.

Example: choir completion bash > ~/.local/share/bash-completion/completions/choir`
}

// Run prints the script.
func (c *completionCommand) Run(k *kong.Kong, t *terminal) error {
	words := completionWords(k.Model.Node)
	switch c.Shell {
	case "bash":
		return bashCompletion(t.out, words)
	case "zsh":
		return zshCompletion(t.out, words)
	}
	return fishCompletion(t.out, k.Model.Node)
}

// completions is what may follow some words: the path of a command, space-separated, and what completes it.
type completions struct {
	path  string
	words []string
}

// completionWords lists the words that may follow each command, in the order of the help.
func completionWords(n *kong.Node) []completions {
	own := completions{path: strings.TrimSpace(strings.TrimPrefix(n.FullPath(), "choir"))}
	var below []completions
	for _, child := range n.Children {
		if child.Hidden {
			continue
		}
		own.words = append(own.words, child.Name)
		below = append(below, completionWords(child)...)
	}
	for _, p := range n.Positional {
		own.words = append(own.words, fixed(p)...)
	}
	flags := n.Flags
	if n.DefaultCmd != nil {
		flags = append(flags, n.DefaultCmd.Flags...)
	}
	for _, f := range flags {
		if !f.Hidden {
			own.words = append(own.words, "--"+f.Name)
		}
	}
	if len(n.Children) == 0 || n.DefaultCmd != nil {
		own.words = append(own.words, "--help")
	}
	return append([]completions{own}, below...)
}

// fixed are the values an argument or flag is limited to.
func fixed(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

func bashCompletion(w io.Writer, all []completions) error {
	fmt.Fprint(w, `# bash completion for choir
_choir() {
  local cur=${COMP_WORDS[COMP_CWORD]} path= word i words
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case "$path $word" in
`)
	for _, c := range all[1:] {
		fmt.Fprintf(w, "      ' %s') path=' %s' ;;\n", c.path, c.path)
	}
	fmt.Fprint(w, "    esac\n  done\n  case \"$path\" in\n")
	for _, c := range all {
		path := c.path
		if path != "" {
			path = " " + path
		}
		fmt.Fprintf(w, "    '%s') words='%s' ;;\n", path, strings.Join(c.words, " "))
	}
	_, err := fmt.Fprint(w, `  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _choir choir
`)
	return err
}

// zshCompletion loads bash's by zsh's own bridge.
func zshCompletion(w io.Writer, all []completions) error {
	fmt.Fprint(w, "#compdef choir\nautoload -Uz bashcompinit && bashcompinit\n")
	return bashCompletion(w, all)
}

func fishCompletion(w io.Writer, root *kong.Node) error {
	fmt.Fprint(w, "# fish completion for choir\n")
	var walk func(n *kong.Node, path []string)
	walk = func(n *kong.Node, path []string) {
		when := "__fish_use_subcommand"
		if len(path) > 0 {
			when = "__fish_seen_subcommand_from " + path[len(path)-1]
			if len(path) > 1 {
				when = "__fish_seen_subcommand_from " + path[0] + "; and " + when
			}
		}
		var names []string
		for _, child := range n.Children {
			names = append(names, child.Name)
		}
		for _, child := range n.Children {
			if child.Hidden {
				continue
			}
			not := ""
			if len(path) > 0 {
				not = "; and not __fish_seen_subcommand_from " + strings.Join(names, " ")
			}
			fmt.Fprintf(w, "complete -c choir -f -n '%s%s' -a %s -d %s\n", when, not, child.Name, fishQuote(child.Help))
			walk(child, append(path, child.Name))
		}
		for _, f := range n.Flags {
			if f.Hidden || f.Name == "help" {
				continue
			}
			line := fmt.Sprintf("complete -c choir -n '%s' -l %s", when, f.Name)
			if f.Short != 0 {
				line += " -s " + string(f.Short)
			}
			if !f.IsBool() {
				line += " -r"
			}
			if words := fixed(f.Value); len(words) > 0 {
				line += " -f -a '" + strings.Join(words, " ") + "'"
			}
			fmt.Fprintf(w, "%s -d %s\n", line, fishQuote(f.Help))
		}
	}
	walk(root, nil)
	return nil
}

// fishQuote is a text in single quotes.
func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "${enum}", "").Replace(s) + "'"
}

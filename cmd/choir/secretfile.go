package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"choir.example/privacy/seal"

	"golang.org/x/term"
)

// maxSecret bounds a secret's file: tokens of many addresses and labels have a few KiB.
const maxSecret = 64 << 10

// readSecret reads a file that only its owner may read. "-" is standard input.
func readSecret(what, path string) ([]byte, error) {
	if path == "-" {
		b, err := io.ReadAll(io.LimitReader(os.Stdin, maxSecret))
		if err != nil {
			return nil, fmt.Errorf("read %s from standard input: %w", what, err)
		}
		return b, nil
	}
	f, err := seal.OpenPrivate(path)
	if err != nil {
		return nil, &hinted{fmt.Errorf("read %s: %w", what, err), secretHint(err, path)}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return b, nil
}

func secretHint(err error, path string) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "the file does not exist; is the path right?"
	case errors.Is(err, os.ErrPermission):
		return "run as the user who owns " + path
	}
	return ""
}

// readLine reads a secret of one line, without the line's end.
func readLine(what, path string) (string, error) {
	b, err := readSecret(what, path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return "", fmt.Errorf("%s %s is empty", what, path)
	}
	return line, nil
}

// askPassphrase asks on the terminal, without showing what is typed; twice for a new one.
func askPassphrase(t *terminal, prompt string, fresh bool) (string, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return "", &usageError{"there is no terminal to ask for the passphrase", "give it in a file of mode 0600: --passphrase-file FILE"}
	}
	ask := func(text string) (string, error) {
		fmt.Fprint(t.err, text)
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(t.err)
		return string(b), err
	}
	first, err := ask(prompt + ": ")
	if err != nil || !fresh {
		return first, err
	}
	second, err := ask("once more: ")
	if err == nil && first != second {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

// confirm asks a yes-or-no question on a terminal.
func confirm(t *terminal, question string) (bool, error) {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false, &usageError{"there is no terminal to ask: " + question, "add --yes if you are sure"}
	}
	fmt.Fprintf(t.err, "%s [y/N] ", question)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return false, err
	}
	return strings.EqualFold(strings.TrimSpace(line), "y"), nil
}

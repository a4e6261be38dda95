package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const c1File = "name: c1\ncluster: shop\naddress: 127.0.0.1:7101\ndir: c1\nlevel: %s\nuploads: %d\n"

// A reload takes over the log's level, names what else has changed, and leaves everything as it was when the file is bad.
func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c1.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func() (any, error) { return readCoordinator(path) }
	write(fmt.Sprintf(c1File, "info", 16))
	old, err := readCoordinator(path)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	log, level, err := logKeys{old.Log, old.Level}.start(&said)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		level      slog.Level
		said       string
	}{
		{"a new level", fmt.Sprintf(c1File, "debug", 16), slog.LevelDebug, `msg="configuration is reloaded" level=debug`},
		{"a key for the next start", fmt.Sprintf(c1File, "warn", 17), slog.LevelWarn, `take effect at the next start" keys=uploads`},
		{"an unknown key", "nmae: c1\n", slog.LevelWarn, `the old one stays" error="` + path + `:1: unknown key`},
		{"an unknown level", fmt.Sprintf(c1File, "loud", 16), slog.LevelWarn, "the old one stays"},
		{"a value out of range", fmt.Sprintf(c1File, "info", 0), slog.LevelWarn, "uploads is 0"},
	} {
		said.Reset()
		write(c.text)
		reload(log, level, old, read)
		if level.Level() != c.level {
			t.Errorf("%s: level %v, want %v", c.name, level.Level(), c.level)
		}
		if !strings.Contains(said.String(), c.said) {
			t.Errorf("%s: said %q, want %q", c.name, said.String(), c.said)
		}
	}
}

// SIGHUP reaches the reload.
func TestReloadOnSIGHUP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n1.yaml")
	if err := os.WriteFile(path, []byte("name: n1\ndir: n1\nlevel: error\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := readNode(path)
	if err != nil {
		t.Fatal(err)
	}
	old.Level = "info"
	said, level := make(told, 10), &slog.LevelVar{}
	reloadOn(t.Context(), slog.New(slog.NewTextHandler(said, nil)), level, old, func() (any, error) { return readNode(path) })
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-said:
		if !strings.Contains(line, `msg="configuration is reloaded" level=error`) || level.Level() != slog.LevelError {
			t.Errorf("level %v, said %q", level.Level(), line)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("SIGHUP did not lead to a reload")
	}
}

// told is a log whose lines can be waited for.
type told chan string

func (c told) Write(line []byte) (int, error) {
	c <- string(line)
	return len(line), nil
}

// log: json writes one object a line.
func TestLogFormats(t *testing.T) {
	var out bytes.Buffer
	log, _, err := logKeys{"json", "warn"}.start(&out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not this")
	log.Warn("this", "round", 7)
	var line struct {
		Msg   string
		Round int
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Msg != "this" || line.Round != 7 {
		t.Errorf("%q: %v", out.String(), err)
	}
	for _, bad := range []logKeys{{"xml", "info"}, {"", "info"}, {"text", ""}, {"text", "INFO"}} {
		if _, _, err := bad.start(&out); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

// What a room says about a field is said in the words of the file.
func TestInFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c1.yaml")
	if err := os.WriteFile(path, []byte("name: c1\n\nbatch_updates: 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for said, want := range map[string]string{
		"coordinator config: BatchUpdates is 99, want 1 to 64 updates": path + ":3: batch_updates is 99, want 1 to 64 updates",
		"coordinator config: Uploads is 0, want 1":                     path + ": uploads is 0, want 1",
		"coordinator config: Voters is 0":                              "coordinator config: Voters is 0",
		"something else":                                               "something else",
	} {
		if got := inFile(path, coordinatorFile{}, errors.New(said)).Error(); got != want {
			t.Errorf("%q becomes %q, want %q", said, got, want)
		}
	}
	if inFile(path, coordinatorFile{}, nil) != nil {
		t.Error("no error becomes one")
	}
}

// Package examples holds small programs that extend choir without changing it; docs/extend.md walks through them.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// maxLines is how short a part of one's own is, with the program that runs it.
var maxLines = map[string]int{"strategy": 39}

// Every example runs, learns, and is as short as docs/extend.md says.
func TestExamplesRun(t *testing.T) {
	programs, err := filepath.Glob("*/main.go")
	if err != nil || len(programs) < 3 {
		t.Fatalf("programs %v: %v", programs, err)
	}
	for _, path := range programs {
		name := filepath.Dir(path)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); maxLines[name] > 0 && n > maxLines[name] {
			t.Errorf("%s has %d lines, want fewer than 40", path, n)
		}
		out, err := exec.Command("go", "run", "./"+name).CombinedOutput()
		m := regexp.MustCompile(`^accuracy (0\.\d{4})\n$`).FindSubmatch(out)
		if err != nil || m == nil {
			t.Errorf("%s: %v: %s", name, err, out)
			continue
		}
		if a, _ := strconv.ParseFloat(string(m[1]), 64); a < .845 { // what guessing gives
			t.Errorf("%s: accuracy %v", name, a)
		}
	}
}

// What docs/extend.md shows of a program stands in it.
func TestWalkThroughIsOfTheExamples(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "extend.md"))
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	programs, _ := filepath.Glob("*/main.go")
	for _, path := range programs {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
		if !strings.Contains(string(doc), "examples/"+filepath.Dir(path)) {
			t.Errorf("docs/extend.md does not speak of examples/%s", filepath.Dir(path))
		}
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	for _, b := range blocks {
		if !strings.Contains(code.String(), b[1]) {
			t.Errorf("docs/extend.md shows what no example has:\n%s", b[1])
		}
	}
	if len(blocks) < len(programs) {
		t.Errorf("%d blocks of %d programs", len(blocks), len(programs))
	}
}

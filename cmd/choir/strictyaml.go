package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"choir.example/internal/nearest"

	"go.yaml.in/yaml/v3"
)

// Configuration files are YAML, decoded strictly into structs whose `yaml` tags name the keys: an unknown key, a key
// given twice, a value of another type, an anchor or a second document is an error that names file, line and key. A
// value that is absent leaves the field as it was, so defaults are what stands in the struct before.

// maxYAML bounds a configuration file: 1 MiB.
const maxYAML = 1 << 20

// readYAML reads a configuration file into a pointer to a struct.
func readYAML(path string, into any) error {
	_, err := readYAMLLines(path, into)
	return err
}

// readYAMLLines also tells in which line the value of each key stands, for what only makes sense, or none, as a whole.
func readYAMLLines(path string, into any) (lines map[string]int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxYAML+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxYAML {
		return nil, fmt.Errorf("%s: more than %d bytes: this is no configuration file", path, maxYAML)
	}
	w := yamlWalk{path, map[string]int{}}
	return w.lines, w.decode(b, into)
}

func decodeYAML(path string, b []byte, into any) error {
	return yamlWalk{path, map[string]int{}}.decode(b, into)
}

func (w yamlWalk) decode(b []byte, into any) error {
	d := yaml.NewDecoder(strings.NewReader(string(b)))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // nothing but comments: all defaults
	case err != nil:
		return fmt.Errorf("%s:%s", w.path, yamlLine.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml:"), "$1: "))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s:%d: a second document begins; a file is one", w.path, max(more.Line, 1))
	}
	if len(doc.Content) != 1 {
		return nil
	}
	return w.value("", doc.Content[0], reflect.ValueOf(into).Elem())
}

// yamlLine is how the parser begins where it knows the line.
var yamlLine = regexp.MustCompile(`^ line (\d+): `)

// yamlWalk fills values from nodes of one file.
type yamlWalk struct {
	path  string
	lines map[string]int // of values, by their dotted keys
}

func (w yamlWalk) fail(n *yaml.Node, key, format string, args ...any) error {
	if key != "" {
		format = key + ": " + format
	}
	return fmt.Errorf("%s:%d: "+format, append([]any{w.path, n.Line}, args...)...)
}

var durationType = reflect.TypeFor[time.Duration]()

// value fills one value; key is its dotted name.
func (w yamlWalk) value(key string, n *yaml.Node, v reflect.Value) error {
	w.lines[key] = n.Line
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return w.fail(n, key, "anchors and aliases are not read here; write the value out")
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.Struct:
		return w.mapping(key, n, v)
	case v.Kind() == reflect.Map:
		return w.labels(key, n, v)
	case v.Kind() == reflect.Slice:
		return w.list(key, n, v)
	}
	return w.scalar(key, n, v)
}

func (w yamlWalk) mapping(key string, n *yaml.Node, v reflect.Value) error {
	if n.Kind != yaml.MappingNode {
		return w.fail(n, key, "want keys with values, not %s", describe(n))
	}
	fields := map[string]int{}
	var known []string
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = i
			known = append(known, name)
		}
	}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		if line, twice := seen[k.Value]; twice {
			return w.fail(k, dotted(key, k.Value), "given twice, first in line %d", line)
		}
		seen[k.Value] = k.Line
		f, ok := fields[k.Value]
		if !ok {
			return &hinted{w.fail(k, "", "unknown key %q%s", k.Value, in(key)), suggest(k.Value, known)}
		}
		if err := w.value(dotted(key, k.Value), value, v.Field(f)); err != nil {
			return err
		}
		if err := w.noUsual(dotted(key, k.Value), value, v.Field(f), v.Type().Field(f).Tag.Get("usual")); err != nil {
			return err
		}
	}
	return nil
}

// noUsual refuses a 0 that is written where 0 stands for a value that is usual: who writes momentum: 0 does not want 0.9. The
// same goes for a section of nothing but zeros. usual is the field's tag; empty where 0 is 0.
func (w yamlWalk) noUsual(key string, n *yaml.Node, v reflect.Value, usual string) error {
	if usual == "" || !v.IsZero() || n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		return nil
	}
	return w.fail(n, key, "%s", zeroFor(usual))
}

// zeroFor is why no 0 is taken where it stands for a usual value.
func zeroFor(usual string) string {
	return fmt.Sprintf("0 would stand for the usual value, %s: leave it out for that, or want more than 0", usual)
}

func (w yamlWalk) labels(key string, n *yaml.Node, v reflect.Value) error {
	if n.Kind != yaml.MappingNode {
		return w.fail(n, key, "want names with values, not %s", describe(n))
	}
	out := reflect.MakeMap(v.Type())
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		value := reflect.New(v.Type().Elem()).Elem()
		if out.MapIndex(reflect.ValueOf(k.Value)).IsValid() {
			return w.fail(k, dotted(key, k.Value), "given twice")
		}
		if err := w.value(dotted(key, k.Value), n.Content[i+1], value); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(k.Value), value)
	}
	v.Set(out)
	return nil
}

func (w yamlWalk) list(key string, n *yaml.Node, v reflect.Value) error {
	if n.Kind != yaml.SequenceNode {
		return w.fail(n, key, "want a list such as [a, b], not %s", describe(n))
	}
	out := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	for i, item := range n.Content {
		value := reflect.New(v.Type().Elem()).Elem()
		if err := w.value(fmt.Sprintf("%s[%d]", key, i), item, value); err != nil {
			return err
		}
		out = reflect.Append(out, value)
	}
	v.Set(out)
	return nil
}

// scalar fills a text, a number, a switch or a duration.
func (w yamlWalk) scalar(key string, n *yaml.Node, v reflect.Value) error {
	want := wanted(v)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return w.fail(n, key, "want %s, not %s", want, describe(n))
	}
	bad := w.fail(n, key, "want %s, not %s", want, describe(n))
	switch {
	case v.Type() == durationType:
		d, err := time.ParseDuration(n.Value)
		if err != nil || d < 0 {
			return bad
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		if n.Tag != "!!str" { // 1e3, true or 2026-01-01 may mean a text, or be a slip
			return &hinted{bad, fmt.Sprintf("if it is meant as a text, put it in quotes: %q", n.Value)}
		}
		v.SetString(n.Value)
	case v.Kind() == reflect.Bool:
		if n.Tag != "!!bool" || n.Value != "true" && n.Value != "false" {
			return bad
		}
		v.SetBool(n.Value == "true")
	case v.CanInt():
		x, err := strconv.ParseInt(n.Value, 10, v.Type().Bits())
		if err != nil || n.Tag != "!!int" {
			return bad
		}
		v.SetInt(x)
	case v.CanUint():
		x, err := strconv.ParseUint(n.Value, 10, v.Type().Bits())
		if err != nil || n.Tag != "!!int" {
			return bad
		}
		v.SetUint(x)
	case v.CanFloat():
		x, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) || n.Tag != "!!int" && n.Tag != "!!float" {
			return bad
		}
		v.SetFloat(x)
	default:
		panic("no rule for " + v.Type().String())
	}
	return nil
}

// wanted names the type of a value for people.
func wanted(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return "a duration such as 500ms, 30s or 2h"
	case v.Kind() == reflect.String:
		return "a text"
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.CanInt():
		return "a whole number"
	case v.CanUint():
		return fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-v.Type().Bits()))
	}
	return "a number"
}

// describe names what stands in the file.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return fmt.Sprintf("%.40q", n.Value)
}

func dotted(parent, key string) string {
	if parent == "" {
		return key
	}
	return parent + "." + key
}

func in(key string) string {
	if key == "" {
		return ""
	}
	return " in " + key
}

// suggest is the hint for an unknown word: the nearest known one, or all.
func suggest(word string, known []string) string {
	best := nearest.Word(word, known)
	if best != "" {
		return didYouMean(best)
	}
	return "known here: " + strings.Join(known, ", ")
}

func didYouMean(word string) string { return fmt.Sprintf("did you mean %q?", word) }

// suggestExperiment is suggest for the names of built-in experiments, of which there are too many to say.
func suggestExperiment(name string) string {
	if best := nearest.Word(name, builtinNames()); best != "" {
		return didYouMean(best)
	}
	return "choir simulate list shows their names"
}

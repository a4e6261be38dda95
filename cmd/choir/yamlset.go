package main

import (
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// setYAML changes one value of a struct that readYAML fills: `path=value`, where the path is the key's dotted name and the
// value is YAML. Items of a list are named by their number, from 0. from says where the assignment stands.
func setYAML(from, assignment string, into any) error {
	path, text, ok := strings.Cut(assignment, "=")
	if path = strings.TrimSpace(path); !ok || path == "" {
		return &usageError{fmt.Sprintf("%s %.60q, want path=value", from, assignment), "such as local.learning_rate=0.05"}
	}
	v, usual, err := valueAt(reflect.ValueOf(into).Elem(), path)
	if err != nil {
		return err.in(from)
	}
	var doc yaml.Node
	if v.Kind() == reflect.String { // as it is: a shell eats quotes
		doc.Content = []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}}
	} else if strings.ContainsAny(text, "\n\r") {
		return &usageError{fmt.Sprintf("%s %s: the value has more than one line", from, path), ""}
	} else if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return &usageError{fmt.Sprintf("%s %s: %s", from, path, strings.TrimPrefix(err.Error(), "yaml: ")), ""}
	}
	if len(doc.Content) != 1 {
		return &usageError{fmt.Sprintf("%s %s: no value", from, path), "such as " + path + "=VALUE"}
	}
	w := yamlWalk{lines: map[string]int{}}
	if err := cmp.Or(w.value(path, doc.Content[0], v), w.noUsual(path, doc.Content[0], v, usual)); err != nil {
		_, text, _ := strings.Cut(err.Error(), ": ") // without file and line, which there are not
		return &usageError{from + " " + text, ""}
	}
	return nil
}

// leftWithNothing refuses an assignment after which, and after all others, a section that it is in has nothing but zeros, if
// that stands for something usual. An assignment alone cannot tell: the next one may write another value there.
func leftWithNothing(from, assignment string, of any) error {
	path, _, _ := strings.Cut(assignment, "=")
	v, at := reflect.ValueOf(of).Elem(), ""
	for key := range strings.SplitSeq(strings.TrimSpace(path), ".") {
		if v.Kind() != reflect.Struct {
			return nil
		}
		f, usual, _ := fieldOf(v, key)
		if at = dotted(at, key); usual != "" && f.Kind() == reflect.Struct && f.IsZero() {
			return &usageError{fmt.Sprintf("%s %s: %s", from, at, zeroFor(usual)), ""}
		}
		v = f
	}
	return nil
}

// unknownKey is a path that leads nowhere.
type unknownKey struct{ text, hint string }

func (e *unknownKey) in(from string) error { return &usageError{from + " " + e.text, e.hint} }

// valueAt is the value with a dotted name, and what 0 stands for there, as noUsual takes it.
func valueAt(v reflect.Value, path string) (_ reflect.Value, usual string, _ *unknownKey) {
	at := ""
	for key := range strings.SplitSeq(path, ".") {
		switch v.Kind() {
		case reflect.Struct:
			f, tag, known := fieldOf(v, key)
			if !f.IsValid() {
				return v, "", &unknownKey{fmt.Sprintf("%s: unknown key %q%s", path, key, in(at)), suggest(key, known)}
			}
			v, usual = f, tag
		case reflect.Slice:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= v.Len() {
				return v, "", &unknownKey{fmt.Sprintf("%s: %s has %d items, want the number of one, from 0", path, at, v.Len()), ""}
			}
			v, usual = v.Index(i), ""
		default:
			return v, "", &unknownKey{fmt.Sprintf("%s: %s is a value and has no key %q", path, at, key), ""}
		}
		at = dotted(at, key)
	}
	return v, usual, nil
}

// fieldOf is the field with a key, what 0 stands for in it, and all keys that there are.
func fieldOf(v reflect.Value, key string) (f reflect.Value, usual string, known []string) {
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Tag.Get("yaml"); name {
		case "", "-":
		case key:
			f, usual = v.Field(i), v.Type().Field(i).Tag.Get("usual")
			fallthrough
		default:
			known = append(known, name)
		}
	}
	return f, usual, known
}

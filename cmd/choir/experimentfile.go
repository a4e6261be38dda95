package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"choir.example/internal/nearest"
	"choir.example/simulate"

	"go.yaml.in/yaml/v3"
)

// experimentFlags say which experiment: by name or by file, and with which changes.
type experimentFlags struct {
	Experiment string   `arg:"" help:"A name that choir simulate list shows, or a YAML file." placeholder:"NAME|FILE"`
	Set        []string `help:"Change a value: its dotted key in the file, =, YAML. May be given several times." placeholder:"PATH=VALUE" sep:"none"`
}

// changed is the experiment that the flags say.
func (f experimentFlags) changed() *changedExperiment {
	e := &changedExperiment{name: f.Experiment}
	for _, text := range f.Set {
		e.changes = append(e.changes, change{"--set", text})
	}
	return e
}

// experiment reads the experiment, with its changes.
func (f experimentFlags) experiment() (simulate.Experiment, error) { return f.changed().read() }

// inExperiment adds to what is said about the experiment where that was said.
func (f experimentFlags) inExperiment(err error) error { return f.changed().explain(err) }

// changedExperiment is an experiment by name or by file, with values of the command line.
type changedExperiment struct {
	name    string
	changes []change // in the order in which they are made
}

// change is a value of the command line.
type change struct {
	flag string // that says it
	text string // path=value
}

func (c change) key() string {
	key, _, _ := strings.Cut(c.text, "=")
	return strings.TrimSpace(key)
}

func (c change) String() string { return fmt.Sprintf("%s %.80s", c.flag, c.text) }

// has reports whether the value with a dotted name is changed.
func (e *changedExperiment) has(key string) bool {
	return slices.ContainsFunc(e.changes, func(c change) bool { return c.key() == key })
}

// read reads the experiment, and makes the changes. What a change says in another way than the experiment takes its place.
func (e *changedExperiment) read() (x simulate.Experiment, err error) {
	if b, ok := simulate.BuiltinNamed(e.name); ok {
		x = b.Experiment
		if e.has("data.path") {
			x.Data = x.Data.At("") // a file in place of what choir would make up
		}
	} else if x, err = readExperiment(e.name); err != nil {
		return x, err
	}
	if e.has("cohort.share") {
		x.Cohort.Nodes = 0
	}
	if e.has("cohort.nodes") {
		x.Cohort.Share = 0
	}
	for _, c := range e.changes {
		if err := setYAML(c.flag, c.text, &x); err != nil {
			return x, err
		}
	}
	for _, c := range e.changes {
		if err := leftWithNothing(c.flag, c.text, &x); err != nil {
			return x, err
		}
	}
	return x, here(&x)
}

// readExperiment reads a file. A path in it is relative to it.
func readExperiment(path string) (x simulate.Experiment, err error) {
	if err := readYAML(path, &x); err != nil {
		if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(path, "./") {
			return x, noExperiment(path)
		}
		return x, missing("experiment", err)
	}
	if x.Name == "" {
		x.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	for _, p := range paths(&x) {
		*p = beside(path, *p)
	}
	return x, nil
}

// paths are the files and directories that an experiment names.
func paths(x *simulate.Experiment) (all []*string) {
	for _, p := range []*string{&x.Data.Path, &x.Data.Schema} {
		if *p != "" {
			all = append(all, p)
		}
	}
	return all
}

// here makes paths absolute: the file of a run is to be read from anywhere.
func here(x *simulate.Experiment) (err error) {
	for _, p := range paths(x) {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// newLoader reads data sets, with schemas as other commands read them.
func newLoader() *simulate.Loader { return &simulate.Loader{Schema: readSchema} }

func builtinNames() (names []string) {
	for _, b := range simulate.Builtins() {
		names = append(names, b.Name)
	}
	return names
}

var (
	aboutSection = regexp.MustCompile(`^(?:experiment [^:]*: )?([a-z_]+): (.*)`)
	wantOneOf    = regexp.MustCompile(`"([^"]*)"[,:] want one of ([^;()]+)$`)
	needsPath    = regexp.MustCompile(`: data: [a-z-]+ needs path: `)
	word         = regexp.MustCompile(`[a-z_]+`)
)

// explain adds to what is said about an experiment where the command line or its file says so, and the nearest name to a wrong
// one.
func (e *changedExperiment) explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	var known *hinted
	if m := wantOneOf.FindStringSubmatch(text); m != nil && !errors.As(err, &known) {
		if best := nearest.Word(m[1], strings.Split(strings.TrimSpace(m[2]), ", ")); best != "" { // all names were said already
			err = &hinted{err, didYouMean(best)}
		}
	}
	_, builtin := simulate.BuiltinNamed(e.name)
	if builtin && needsPath.MatchString(text) {
		return &hinted{err, "--set data.path=DIR"}
	}
	keys := keysAbout(text, simulate.Experiment{})
	switch c := e.cause(keys, text); {
	case keys == nil:
		return err
	case c != nil:
		return fmt.Errorf("%s: %w", c, err)
	case builtin:
		return err
	}
	return fmt.Errorf("%s: %w", place(e.name, keys...), err)
}

// cause is the change that a text is about that is about the value with these keys; nil: it is about what the experiment says
// itself.
func (e *changedExperiment) cause(keys []any, text string) *change {
	path := ""
	for _, key := range keys {
		path = dotted(path, key.(string))
	}
	for i := range slices.Backward(e.changes) {
		if key := e.changes[i].key(); path == key || strings.HasPrefix(path, key+".") {
			return &e.changes[i]
		}
	}
	found, _, _ := strings.Cut(text, " want ") // what follows are other values
	said := strings.FieldsFunc(found, func(r rune) bool { return strings.ContainsRune(" \",:;()", r) })
	for i := range slices.Backward(e.changes) { // of the parts of it, the one whose value is named
		c := &e.changes[i]
		if _, value, _ := strings.Cut(c.text, "="); strings.HasPrefix(c.key(), path+".") && slices.Contains(said, plainValue(value)) {
			return c
		}
	}
	return nil
}

// plainValue is a scalar of YAML as messages write it.
func plainValue(text string) string {
	var v any
	if yaml.Unmarshal([]byte(text), &v) != nil {
		return text
	}
	return fmt.Sprint(v)
}

// inSection is where a file says what a text is about that begins with a section of it, empty if it begins with none.
func inSection(path, text string, file any) string {
	keys := keysAbout(text, file)
	if keys == nil {
		return ""
	}
	return place(path, keys...)
}

// keysAbout are the keys of the value that a text is about which begins with a section of a file: the section, and a field of it
// that is named; nil if it begins with none.
func keysAbout(text string, file any) []any {
	m := aboutSection.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	section, _, _ := fieldOf(reflect.ValueOf(file), m[1])
	if !section.IsValid() {
		return nil
	}
	keys := []any{m[1]}
	if section.Kind() == reflect.Struct {
		_, _, fields := fieldOf(section, "")
		for _, w := range word.FindAllString(m[2], -1) {
			if slices.Contains(fields, w) {
				return append(keys, w)
			}
		}
	}
	return keys
}

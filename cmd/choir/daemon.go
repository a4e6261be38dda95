package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"time"

	"choir.example/privacy/seal"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logKeys are the keys of a daemon's file that say how it logs, on standard error.
type logKeys struct {
	Log   string
	Level string
}

var logLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// start makes the log, and the level that a reload may change.
func (k logKeys) start(w io.Writer) (*slog.Logger, *slog.LevelVar, error) {
	if err := k.check(); err != nil {
		return nil, nil, err
	}
	level := &slog.LevelVar{}
	level.Set(logLevels[k.Level])
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(plain(err))
		}
		return a
	}}
	if k.Log == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level, nil
	}
	return slog.New(slog.NewTextHandler(w, options)), level, nil
}

// check names the first key that is wrong, as rooms name the fields of their configurations.
func (k logKeys) check() error {
	if k.Log != "text" && k.Log != "json" {
		return fmt.Errorf("coordinator config: Log is %q, want text or json", k.Log)
	}
	if _, ok := logLevels[k.Level]; !ok {
		return fmt.Errorf("coordinator config: Level is %q, want debug, info, warn or error", k.Level)
	}
	return nil
}

// reloadOn reads the configuration again whenever SIGHUP comes, until ctx ends. read returns the new configuration, a
// struct with yaml tags like the old one. The level is taken over; other keys that changed are named.
func reloadOn(ctx context.Context, log *slog.Logger, level *slog.LevelVar, old any, read func() (any, error)) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				reload(log, level, old, read)
			}
		}
	}()
}

func reload(log *slog.Logger, level *slog.LevelVar, old any, read func() (any, error)) {
	next, err := read()
	if err != nil {
		log.Error("configuration is not reloaded; the old one stays", "error", err)
		return
	}
	keys := changedKeys(old, next)
	var restart []string
	for _, k := range keys {
		if k != "level" {
			restart = append(restart, k)
		}
	}
	name := reflect.ValueOf(next).FieldByName("Level").String()
	level.Set(logLevels[name])
	log.Info("configuration is reloaded", "level", name)
	if len(restart) > 0 {
		log.Warn("these keys changed and take effect at the next start", "keys", strings.Join(restart, ", "))
	}
}

// changedKeys names the keys in which two configurations of one type differ.
func changedKeys(a, b any) []string {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	var out []string
	for i := range x.NumField() {
		if key := x.Type().Field(i).Tag.Get("yaml"); key != "" && !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			out = append(out, key)
		}
	}
	return out
}

var configField = regexp.MustCompile(`^(?:coordinator|node) config: ([A-Z][A-Za-z]*)`)

// inFile turns what a room says about a field of its configuration into the words of the file: path, line and key.
func inFile(path string, file any, err error) error {
	m := configField.FindStringSubmatch(fmt.Sprint(err))
	if m == nil {
		return err
	}
	t := reflect.TypeOf(file)
	field, ok := t.FieldByName(m[1])
	if !ok {
		return err
	}
	key := field.Tag.Get("yaml")
	return fmt.Errorf("%s: %s%s", place(path, key), key, strings.TrimPrefix(err.Error(), m[0]))
}

// place is the path of a file, and the line in which it gives a key, if it does: keys of mappings, numbers in lists.
func place(path string, keys ...any) string {
	if path == "" {
		return "configuration"
	}
	if line := keyLine(path, keys); line > 0 {
		return fmt.Sprintf("%s:%d", path, line)
	}
	return path
}

// keyLine is the line of the last of the keys that there is, 0 if there is none.
func keyLine(path string, keys []any) (line int) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var doc yaml.Node
	if yaml.Unmarshal(b, &doc) != nil || len(doc.Content) == 0 {
		return 0
	}
	n := doc.Content[0]
	for _, key := range keys {
		at, value := child(n, key)
		if at == nil {
			return line
		}
		line, n = at.Line, value
	}
	return line
}

// child is what a node holds under a key of a mapping or a number of a list, and where that stands.
func child(n *yaml.Node, key any) (at, value *yaml.Node) {
	switch key := key.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && key < len(n.Content) {
			return n.Content[key], n.Content[key]
		}
	case string:
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return n.Content[i], n.Content[i+1]
			}
		}
	}
	return nil, nil
}

// startHint adds the cure to a port that keeps a daemon from starting.
func startHint(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return &hinted{err, "another process has the port, perhaps this one, started twice; stop it, or change the address in the configuration"}
	}
	return err
}

// dialTCP is how daemons reach others.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
}

// readToken reads a token: from a file, from standard input if source is "-", or the token itself.
func readToken(source string) (*seal.Token, error) {
	text := source
	if !strings.HasPrefix(source, "choir-token-") {
		b, err := readSecret("token", strings.TrimPrefix(source, "@"))
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	token, err := seal.ParseToken(text)
	if err != nil {
		return nil, &hinted{err, "copy the whole line, or ask an operator for a new one: choir token create"}
	}
	return token, nil
}

// tokenError adds the cure to what a coordinator says about a token.
func tokenError(err error) error {
	switch {
	case errors.Is(err, seal.ErrKeyLost): // it says what to do, and the token is still good
		return err
	case errors.Is(err, seal.ErrForeign):
		return &hinted{err, "one directory is in one federation; give this one's configuration another dir, or take a token of its federation"}
	case errors.Is(err, seal.ErrExpired):
		return &hinted{err, "is this machine's clock right? It says " + clockText() + ". If so, ask an operator for a new one: choir token create"}
	case status.Code(err) == codes.AlreadyExists:
		return &hinted{err, "the name is taken, for good; give this one's configuration another name: the token is still good"}
	case strings.Contains(err.Error(), "token"):
		return &hinted{err, "ask an operator for a new one: choir token create; choir token list tells what became of this one"}
	}
	return err
}

var random = rand.Reader

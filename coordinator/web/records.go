package web

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// recordsBody lists the audit log, the newest record first.
type recordsBody struct {
	Pager   pager
	Root    string // of the tree over all records
	Records []recordRow
}

type recordRow struct {
	Index uint64
	Kind  string
	About string
}

func records(r *http.Request, s *state.State) (view, error) {
	n := s.Log.Size()
	b := recordsBody{Pager: pageOf(r, n)}
	if n > 0 {
		root := s.Log.Root()
		b.Root = hex.EncodeToString(root[:])
	}
	for i := b.Pager.From; i < b.Pager.To; i++ {
		index := n - 1 - i
		rec, err := audit.Decode(s.Log.Record(index))
		if err != nil {
			return view{}, fmt.Errorf("record %d: %w", index, err)
		}
		b.Records = append(b.Records, recordRow{index, rec.Kind().String(), about(rec)})
	}
	return view{"records", "records", "Records", b}, nil
}

// recordBody is one record, field by field.
type recordBody struct {
	Index, Last uint64
	Kind        string
	Leaf        string // its encoding in hex, as it stands in the log
	Fields      []field
}

// field is one value of a record: a text, or a table.
type field struct {
	Name  string
	Text  string
	Code  bool // the text is a digest, a key or the like
	Head  []string
	Table [][]cell
}

// cell is one value in a table.
type cell struct {
	Text string
	Code bool
}

func record(r *http.Request, s *state.State) (view, error) {
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 64)
	if err != nil || index >= s.Log.Size() {
		return view{}, errNotFound
	}
	leaf := s.Log.Record(index)
	rec, err := audit.Decode(leaf)
	if err != nil {
		return view{}, fmt.Errorf("record %d: %w", index, err)
	}
	b := recordBody{Index: index, Last: s.Log.Size() - 1, Kind: rec.Kind().String(), Leaf: hex.EncodeToString(leaf), Fields: fieldsOf(rec)}
	return view{"record", "records", fmt.Sprintf("Record %d", index), b}, nil
}

// fieldsOf reads a record of any kind, also of one that comes later than this page.
func fieldsOf(rec audit.Record) []field { return fieldsIn(reflect.Indirect(reflect.ValueOf(rec))) }

func fieldsIn(v reflect.Value) (out []field) {
	for i := range v.NumField() {
		name, value := v.Type().Field(i).Name, v.Field(i)
		f := field{Name: title(name)}
		switch {
		case value.Kind() == reflect.Struct: // its fields stand beside the others
			out = append(out, fieldsIn(value)...)
			continue
		case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
			f.Head, f.Table = tableOf(value)
			f.Text = plural(value.Len(), "entry", "entries")
		default:
			f.Text, f.Code = textOf(name, value)
		}
		out = append(out, f)
	}
	return out
}

// tableOf writes a slice of structs, a row each.
func tableOf(v reflect.Value) (head []string, rows [][]cell) {
	t := v.Type().Elem()
	for i := range t.NumField() {
		head = append(head, title(t.Field(i).Name))
	}
	for k := range v.Len() {
		var row []cell
		for i := range t.NumField() {
			text, code := textOf(t.Field(i).Name, v.Index(k).Field(i))
			row = append(row, cell{text, code})
		}
		rows = append(rows, row)
	}
	return head, rows
}

// textOf writes one value: digests and bytes in hex, certificates by their fingerprint, times as dates.
func textOf(name string, v reflect.Value) (text string, code bool) {
	switch x := v.Interface().(type) {
	case [32]byte:
		if x == [32]byte{} {
			return "none", false
		}
		return hex.EncodeToString(x[:]), true
	case []byte:
		switch {
		case len(x) == 0:
			return "none", false
		case len(x) > 128:
			return "certificate with fingerprint " + fingerprint(x), true
		}
		return hex.EncodeToString(x), true
	case [][]byte:
		var all []string
		for _, der := range x {
			all = append(all, fingerprint(der))
		}
		return orNone(strings.Join(all, ", "), "none"), len(all) > 0
	case [][32]byte:
		var all []string
		for _, d := range x {
			all = append(all, hex.EncodeToString(d[:]))
		}
		return orNone(strings.Join(all, ", "), "none"), len(all) > 0
	case []string:
		return orNone(strings.Join(x, ", "), "none"), false
	case int64:
		if strings.HasSuffix(name, "MS") {
			return time.UnixMilli(x).UTC().Format("2006-01-02 15:04:05 MST"), false
		}
		return num(x), false
	case string:
		return orNone(x, "none"), len(x) > 60 && !strings.Contains(x, " ")
	case bool:
		if x {
			return "yes", false
		}
		return "no", false
	}
	if v.CanUint() {
		if name == "Epoch" {
			return epoch(v.Uint()), false
		}
		if name == "RoundKind" {
			return kind(choirv1.RoundKind(v.Uint())), false
		}
		return num(v.Uint()), false
	}
	return fmt.Sprint(v.Interface()), false
}

// title writes a field's name in words: "ExpiresMS" is "Expires", "RoundKind" is "Round kind".
func title(name string) string {
	name = strings.TrimSuffix(name, "MS")
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) && !unicode.IsUpper(rune(name[i-1])) {
			b.WriteByte(' ')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// about says in half a line what a record is about.
func about(rec audit.Record) string {
	v := reflect.Indirect(reflect.ValueOf(rec))
	text := func(name string) string {
		f := v.FieldByName(name)
		if f.IsValid() && f.Kind() == reflect.Struct {
			f = f.FieldByName("Name")
		}
		if !f.IsValid() || f.IsZero() {
			return ""
		}
		s, _ := textOf(name, f)
		return s
	}
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	switch rec := rec.(type) {
	case *audit.BatchAccepted:
		return fmt.Sprintf("%s, round %d: %s by %s", rec.Job, rec.Round, plural(len(rec.Accepted), "update", "updates"), rec.Coordinator)
	case *audit.RoundOpened:
		return fmt.Sprintf("%s, %s round %d: %s invited", rec.Job, kind(choirv1.RoundKind(rec.RoundKind)), rec.Round, plural(len(rec.Cohort), "node", "nodes"))
	case *audit.RootRotated:
		said := fmt.Sprintf("to %.16s…, for %s", seal.Fingerprint(rec.Root), plural(len(rec.Coordinators), "coordinator", "coordinators"))
		if rec.Retired {
			said += "; the one before is retired"
		}
		return said
	case *audit.Released:
		return fmt.Sprintf("%s version %d, from round %d of %s", rec.Model, rec.Version, rec.Round, rec.Job)
	}
	add(text("Cluster"))
	add(text("Job"))
	if n := v.FieldByName("Round"); n.IsValid() && text("Job") != "" { // an incident need not belong to a round
		add(fmt.Sprintf("round %d", n.Uint()))
	}
	if n := v.FieldByName("Attempt"); n.IsValid() && n.CanUint() && n.Uint() > 1 {
		add(fmt.Sprintf("attempt %d", n.Uint()))
	}
	for _, name := range []string{"Node", "Coordinator", "Name", "ID", "Fingerprint", "State", "Action", "Reason"} {
		add(text(name))
	}
	if n := text("Epoch"); n != "" {
		add("epoch " + n)
	}
	if n := v.FieldByName("Count"); n.IsValid() && n.CanUint() {
		add(plural(n.Uint(), "update", "updates"))
	}
	return strings.Join(parts, ", ")
}

// Before is the number of the record before.
func (b recordBody) Before() uint64 { return b.Index - 1 }

// After is the number of the next record.
func (b recordBody) After() uint64 { return b.Index + 1 }

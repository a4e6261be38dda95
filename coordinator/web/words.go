package web

import (
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// words are how templates write values.
var words = template.FuncMap{
	"num":    num,
	"size":   size,
	"auc":    func(millionths int64) string { return fmt.Sprintf("%.4f", float64(millionths)/1e6) },
	"short":  func(digest fmt.Stringer) string { return digest.String()[:12] },
	"labels": labels,
	"kind":   kind,
	"epoch":  epoch,
	"list":   func(xs []string) string { return strings.Join(xs, ", ") },
	"plural": plural,
}

// num writes a whole number with thin spaces between thousands.
func num(v any) string {
	s := fmt.Sprint(v)
	if f, ok := v.(float64); ok {
		s = strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64)
	}
	whole, rest := s, ""
	if i := strings.IndexByte(s, '.'); i >= 0 {
		whole, rest = s[:i], s[i:]
	}
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "\u202f" + whole[i:]
	}
	return whole + rest
}

// size writes a number of bytes for people.
func size(n uint64) string {
	switch {
	case n < 10_000:
		return num(n) + " B"
	case n < 10<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/1024)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// plural writes a number with its noun.
func plural(n any, one, many string) string {
	if s := num(n); s != "1" {
		return s + " " + many
	}
	return "1 " + one
}

// labels lists labels in order of their names.
func labels(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}

func kind(k choirv1.RoundKind) string {
	switch k {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		return "statistics"
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		return "training"
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		return "evaluation"
	}
	return "unknown"
}

// epoch writes an epoch's number: the time its key was made, in seconds.
func epoch(n uint64) string {
	if n < 1e9 || n > 1e11 { // not a time
		return num(n)
	}
	return time.Unix(int64(n), 0).UTC().Format("2006-01-02 15:04 MST")
}

// fingerprint is the root's, empty before there is one.
func fingerprint(der []byte) string {
	if len(der) == 0 {
		return ""
	}
	return seal.Fingerprint(der)
}

// span writes a duration that a specification gives in milliseconds.
func span(ms uint64) string {
	if ms > math.MaxInt64/uint64(time.Millisecond) {
		return num(ms) + " ms"
	}
	switch d := time.Duration(ms) * time.Millisecond; {
	case d >= time.Minute && d%time.Minute == 0:
		return plural(uint64(d/time.Minute), "minute", "minutes")
	case d < time.Minute:
		return fmt.Sprintf("%g s", d.Seconds())
	default:
		return d.String()
	}
}

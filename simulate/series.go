package simulate

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// pointLine is a point in JSON. What was not measured is left out: JSON has no NaN.
type pointLine struct {
	Round    int      `json:"round"`
	Accuracy *float64 `json:"accuracy,omitempty"`
	Loss     *float64 `json:"loss,omitempty"`
	Digest   string   `json:"model_digest"`
	Counted  int      `json:"updates"`
	Dropped  int      `json:"dropped,omitempty"`
	Late     int      `json:"late,omitempty"`
	Skipped  string   `json:"skipped,omitempty"`
	Seconds  float64  `json:"virtual_seconds,omitempty"`
	Sent     int64    `json:"sent_bytes"`
	Received int64    `json:"received_bytes"`
}

// MarshalJSON writes a point as an object, without the values that were not measured.
func (p Point) MarshalJSON() ([]byte, error) {
	l := pointLine{
		Round: p.Round, Digest: p.Digest, Counted: p.Counted, Dropped: p.Dropped, Late: p.Late, Skipped: p.Skipped, Seconds: p.Seconds,
		Sent: p.Sent, Received: p.Received,
	}
	if !math.IsNaN(p.Accuracy) {
		l.Accuracy, l.Loss = &p.Accuracy, &p.Loss
	}
	return json.Marshal(l)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Point) UnmarshalJSON(b []byte) error {
	var l pointLine
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	*p = Point{
		Round: l.Round, Accuracy: math.NaN(), Loss: math.NaN(), Digest: l.Digest, Counted: l.Counted, Dropped: l.Dropped, Late: l.Late,
		Skipped: l.Skipped, Seconds: l.Seconds, Sent: l.Sent, Received: l.Received,
	}
	if l.Accuracy != nil && l.Loss != nil {
		p.Accuracy, p.Loss = *l.Accuracy, *l.Loss
	}
	return nil
}

// WriteJSONLines writes points, one JSON object a line.
func WriteJSONLines(w io.Writer, points []Point) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	for _, p := range points {
		if err := e.Encode(p); err != nil {
			return fmt.Errorf("write rounds: %w", err)
		}
	}
	return b.Flush()
}

// ReadJSONLines reads what WriteJSONLines wrote: rounds in order, from 1. name is the file's, for messages.
func ReadJSONLines(r io.Reader, name string) (points []Point, err error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for line := range bytes.Lines(b) {
		var p Point
		err := json.Unmarshal(line, &p)
		if err == nil && p.Round != len(points)+1 {
			err = fmt.Errorf("round %d, want %d", p.Round, len(points)+1)
		}
		if err == nil && line[len(line)-1] != '\n' {
			err = errors.New("the line has no end")
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, len(points)+1, err)
		}
		points = append(points, p)
	}
	return points, nil
}

// WriteCSV writes points as a table with a head. What was not measured is empty.
func WriteCSV(w io.Writer, points []Point) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"round", "accuracy", "loss", "model_digest", "updates", "dropped", "late", "skipped", "virtual_seconds", "sent_bytes", "received_bytes"}}
	number := func(v float64) string {
		if math.IsNaN(v) {
			return ""
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	for _, p := range points {
		rows = append(rows, []string{
			strconv.Itoa(p.Round), number(p.Accuracy), number(p.Loss), p.Digest, strconv.Itoa(p.Counted), strconv.Itoa(p.Dropped), strconv.Itoa(p.Late),
			p.Skipped, number(p.Seconds), fmt.Sprint(p.Sent), fmt.Sprint(p.Received),
		})
	}
	if err := c.WriteAll(rows); err != nil {
		return fmt.Errorf("write rounds: %w", err)
	}
	return nil
}

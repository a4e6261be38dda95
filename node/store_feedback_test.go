package node

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"choir.example/model/data"

	"go.etcd.io/bbolt"
)

// The outcomes of predictions are rows of one import, which rounds learn from; each prediction counts once.
func TestFeedbackIsOneImport(t *testing.T) {
	s := toyStore(t, t.TempDir(), 2)
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	before := s.imports.Load()
	for i := range 3 {
		if err := s.AddExample(fmt.Sprint("p", i), data.Row{float64(i), 1, 0, 1, 1}, at.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if s.imports.Load() == before {
		t.Error("who keeps rows in memory is not told")
	}
	for _, row := range []data.Row{{1, 1, 0, 1, 1}, {1, 1, 0, 1, 0}} {
		if err := s.AddExample("p1", row, at); !errors.Is(err, ErrAnswered) {
			t.Errorf("answered twice: %v", err)
		}
	}
	for range 2 {
		wantCount(t, s, Train, 5)
		wantCount(t, s, Validation, 0)
		list := s.List()
		if i := list[1]; len(list) != 2 || i.ID != FeedbackID || i.File != "feedback" || i.Rows != 3 || i.Train != 3 || !i.Time.Equal(at.Add(2*time.Hour)) {
			t.Errorf("the list is %+v", list)
		}
		s = reopen(t, s)
	}
	rows, err := s.Rows(Train)
	if got, want := fmt.Sprint(rows[2:], err), "[[0 1 0 1 1] [1 1 0 1 1] [2 1 0 1 1]] <nil>"; got != want {
		t.Errorf("rows are %s, want %s", got, want)
	}
	if gone, err := s.Delete(FeedbackID); err != nil || gone.Rows != 3 {
		t.Errorf("%+v, %v", gone, err)
	}
	wantNothing(t, s, 1)
	addExample(t, s, "p1", data.Row{1, 1, 0, 1, 0}) // nothing of it is remembered
	wantCount(t, reopen(t, s), Train, 3)
}

func TestBadFeedbackIsRefused(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	good := data.Row{1, 1, 0, 1, 1}
	wantError(t, s.AddExample("p", good, time.Now()), "no schema yet")
	if err := s.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.AddExample("", good, time.Now()), "no id")
	wantError(t, s.AddExample("p", good[1:], time.Now()), "4 values, want 5")
	wantError(t, s.AddExample("p", data.Row{1, 1, 0, 1, math.NaN()}, time.Now()), "column y")
	wantNothing(t, s, 0)
	addExample(t, s, "p", good)
}

// The ids of predictions do not stand in the file, and a list of them that lost one is found out.
func TestAnsweredPredictionsAreKept(t *testing.T) {
	s := toyStore(t, t.TempDir(), 0)
	addExample(t, s, "prediction-4711", data.Row{1, 1, 0, 1, 1})
	dir := s.path[:len(s.path)-len("/store.db")]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for path, body := range files(t, dir) {
		if bytes.Contains(body, []byte("prediction-4711")) {
			t.Errorf("%s names the prediction", path)
		}
	}
	raw(t, dir, func(tx *bbolt.Tx) error { return empty(tx, bucketAnswers) })
	_, err := openStore(s.path, s.box)
	wantError(t, err, "0 predictions are answered by 1 rows", damageCure)
}

package main

import (
	"encoding/json"
	"reflect"
	"testing"

	"choir.example/privacy/audit"
)

// Records are shown in words and figures that people know; what is absent is not shown.
func TestReadableRecords(t *testing.T) {
	for want, record := range map[string]audit.Record{
		`{"attempt":2,"candidates":[],"cohort":[],"goal":0,"kind":"train","minimumCohort":2,"model":"0700000000000000000000000000000000000000000000000000000000000000"}`: &audit.RoundOpened{
			Job: "j", Round: 3, Attempt: 2, RoundKind: 2, MinimumCohort: 2, Model: [32]byte{7}},
		`{"attempt":1,"count":3,"evalCorrect":75,"evalExamples":100,"evalLoss":0.5,"weight":300}`: &audit.RoundClosed{
			Job: "j", Round: 3, Attempt: 1, Count: 3, Weight: 300, EvalExamples: 100, EvalCorrect: 75, EvalLoss: 50 << 20},
	} {
		got, err := json.Marshal(readable(reflect.ValueOf(record).Elem()))
		if err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}

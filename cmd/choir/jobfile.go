package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// jobFile is a job as people write it. deploy/local/job.yaml explains each key. The sections that say what is trained and
// how are those of an experiment's file.
type jobFile struct {
	Name   string `yaml:"name"`
	Model  string `yaml:"model"`
	Schema string `yaml:"schema"`
	Rounds uint64 `yaml:"rounds"`

	Architecture model.Architecture      `yaml:"architecture"`
	Local        fedavg.LocalSettings    `yaml:"local"`
	Strategy     fedavg.StrategySettings `yaml:"strategy"`
	Robust       fedavg.RobustSettings   `yaml:"robust"`
	Compression  fedavg.Compression      `yaml:"compression"`
	Privacy      fedavg.Privacy          `yaml:"privacy"`

	WeightCap          int64         `yaml:"weight_cap"`
	MinimumCohort      uint32        `yaml:"minimum_cohort"`
	MinimumExamples    int64         `yaml:"minimum_examples"`
	Goal               uint32        `yaml:"goal"`
	OverSelection      uint32        `yaml:"over_selection_percent"`
	Where              string        `yaml:"where"`
	Duration           time.Duration `yaml:"duration"`
	Wait               time.Duration `yaml:"wait"`
	MaxAttempts        uint32        `yaml:"max_attempts"`
	Seed               uint64        `yaml:"seed"`
	BudgetRounds       uint32        `yaml:"budget_rounds"`
	Publish            string        `yaml:"publish"`
	Validation         string        `yaml:"validation"`
	Public             string        `yaml:"public"`
	GateInt8           float64       `yaml:"gate_int8"`
	GateStudent        float64       `yaml:"gate_student"`
	StudentHidden      uint32        `yaml:"student_hidden"`
	StudentRows        uint32        `yaml:"student_rows"`
	StudentTemperature float64       `yaml:"student_temperature"`
	StudentEpochs      uint32        `yaml:"student_epochs"`
	StudentRate        float64       `yaml:"student_rate"`
}

// defaultJob trains by federated averaging.
func defaultJob() jobFile {
	return jobFile{
		Rounds: 20, WeightCap: 1 << 20, MinimumCohort: 2, Duration: 30 * time.Second, Wait: 20 * time.Second, MaxAttempts: 5,
		GateInt8: 0.002, GateStudent: 0.01, StudentRows: 20_000, StudentTemperature: 2, StudentEpochs: 15, StudentRate: 0.3,
	}
}

// moved are keys of earlier versions, and where their values stand now.
var moved = map[string]string{
	"hidden": "architecture: {name: mlp, hidden: [32]}", "local_epochs": "local: {epochs: 2}", "batch": "local: {batch: 32}",
	"learning_rate": "local: {learning_rate: 0.1}", "server_rate": "strategy: {server_rate: 1}", "range": "compression: {range: 4}",
	"clip": "privacy: {clip: 1}",
}

var noSuchKey = regexp.MustCompile(`unknown key "([a-z_]+)"$`)

// inSections says of a key of an earlier version where its value stands now.
func inSections(err error) error {
	if m := noSuchKey.FindStringSubmatch(fmt.Sprint(err)); m != nil && moved[m[1]] != "" {
		return &hinted{err, fmt.Sprintf("it stands in a section now, as in %s", moved[m[1]])}
	}
	return err
}

// maxSets bounds the public sets of a job in bytes: they travel in one message.
const maxSets = 3 << 20

// readJob reads a job's file, or an experiment's as one, and the files that it names, relative to it. Files that
// were given beside it take the place of those. What people should know goes to talk.
func readJob(path string, given jobFiles, talk io.Writer) (*choirv1.SubmitJobRequest, error) {
	j := defaultJob()
	err := readYAML(path, &j)
	key := ofExperiment(err)
	if key != "" {
		j, err = readExperimentJob(path, key, err, talk)
	}
	if err != nil {
		return nil, missing("job file", inSections(err))
	}
	j.Schema, j.Public = cmp.Or(given.Schema, j.Schema), cmp.Or(given.Public, j.Public)
	if j.Name == "" {
		return nil, &hinted{fmt.Errorf("%s: name is missing", path), "give the job a name: letters, digits, ., _ and -"}
	}
	if j.Schema == "" {
		return nil, &hinted{fmt.Errorf("%s: schema is missing", path), "name the file that says what the columns mean, such as schema: shop.yaml, or --schema shop.yaml"}
	}
	if j.Model == "" {
		j.Model = j.Name
	}
	if reflect.DeepEqual(j.Architecture, model.Architecture{}) {
		j.Architecture = model.Architecture{Name: "mlp", Hidden: []int{32}}
	}
	spec, err := j.spec()
	if err != nil {
		return nil, inJob(path, err)
	}
	schema, err := readSchema(beside(path, j.Schema))
	if err != nil {
		return nil, fmt.Errorf("%s: schema: %w", place(path, "schema"), err)
	}
	spec.Schema = schema.Encode()
	if key != "" && schema.Classes() > 1 {
		spec.Publish = jobspec.PublishNone // releases are of one score
		fmt.Fprintf(talk, "the label has %d classes: the job makes no release; choir job model fetches its models\n", schema.Classes())
	}
	if err := state.CheckSpec(spec); err != nil && key != "" {
		return nil, inExperimentsWords(inJob(path, err))
	} else if err != nil {
		return nil, inJob(path, err)
	}
	req := &choirv1.SubmitJobRequest{Spec: spec}
	return req, j.readSets(path, schema, req)
}

// readSets reads the public sets that the file at path names.
func (j *jobFile) readSets(path string, schema *data.Schema, req *choirv1.SubmitJobRequest) (err error) {
	room := maxSets
	for _, s := range []struct {
		key, name string
		set       *[]byte
	}{{"validation", j.Validation, &req.Validation}, {"public", j.Public, &req.Public}} {
		if s.name == "" {
			continue
		}
		if *s.set, err = readSet(beside(path, s.name), schema, room); err != nil {
			return fmt.Errorf("%s: %s: %w", place(path, s.key), s.key, err)
		}
		room -= len(*s.set)
	}
	return nil
}

// readSet reads a public set. Its rows are read here, before any of it leaves this machine: a wrong file may hold what
// nobody else should see.
func readSet(path string, schema *data.Schema, room int) ([]byte, error) {
	set, err := readSmall(path, int64(room))
	if err != nil {
		return nil, err
	}
	rows := 0
	err = data.ReadCSV(bytes.NewReader(set), path, schema, func(int, data.Row) error { rows++; return nil })
	if err == nil && rows == 0 {
		err = fmt.Errorf("%s has no rows", path)
	}
	return set, err
}

// jobField finds the field that a message about a job is about.
var jobField = regexp.MustCompile(`^(?:job [^ ]+: )?(?:(job|model) name|([a-z][a-z0-9_]*))`)

// inJob turns what is said about a field of a job into the words of the file: path, line and key.
func inJob(path string, err error) error {
	text := err.Error()
	if at := inSection(path, strings.TrimPrefix(text, jobPrefix.FindString(text)), jobFile{}); at != "" {
		return fmt.Errorf("%s: %s", at, strings.TrimPrefix(text, jobPrefix.FindString(text)))
	}
	m := jobField.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	key := map[string]string{"": m[2], "job": "name", "model": "model"}[m[1]]
	if !slices.Contains(keysOf(reflect.TypeFor[jobFile]()), key) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return fmt.Errorf("%s: %s%s", place(path, key), key, strings.TrimPrefix(text, m[0]))
}

// jobPrefix is how coordinators begin what they say about a job.
var jobPrefix = regexp.MustCompile(`^job [^ ]+: `)

// keysOf are the keys that a file of this type may have.
func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("yaml"))
	}
	return keys
}

func (j *jobFile) spec() (*choirv1.JobSpec, error) {
	where, err := parseWhere(j.Where)
	if err != nil {
		return nil, fmt.Errorf("where: %w", err)
	}
	if j.Publish == jobspec.PublishNone && j.Validation != "" {
		return nil, fmt.Errorf("publish is %s, and validation is for a release", jobspec.PublishNone)
	}
	for _, g := range []struct {
		key   string
		value float64
	}{{"gate_int8", j.GateInt8}, {"gate_student", j.GateStudent}} {
		if g.value < 0 || g.value > 1 {
			return nil, fmt.Errorf("%s is %v, want the AUC that may be lost, 0 to 1", g.key, g.value)
		}
	}
	for _, d := range []struct {
		key              string
		value, low, most time.Duration
	}{{"duration", j.Duration, 100 * time.Millisecond, 7 * 24 * time.Hour}, {"wait", j.Wait, 0, 24 * time.Hour}} {
		if d.value < d.low || d.value > d.most {
			return nil, fmt.Errorf("%s is %v, want %v to %v", d.key, d.value, d.low, d.most)
		}
	}
	algorithm, err := jobspec.Encode(&fedavg.Settings{
		Architecture: j.Architecture, Local: j.Local, Strategy: j.Strategy, Robust: j.Robust, Compression: j.Compression, Privacy: j.Privacy,
	})
	if err != nil {
		return nil, err
	}
	return &choirv1.JobSpec{
		Name: j.Name, Model: j.Model, Algorithm: algorithm, Rounds: j.Rounds, Publish: j.Publish, WeightCap: j.WeightCap,
		MinimumCohort: j.MinimumCohort, MinimumExamples: j.MinimumExamples, Goal: j.Goal, OverSelectionPercent: j.OverSelection,
		Where: where, DurationMs: uint64(j.Duration / time.Millisecond), WaitMs: uint64(j.Wait / time.Millisecond),
		MaxAttempts: j.MaxAttempts, Seed: j.Seed, BudgetRounds: j.BudgetRounds,
		GateInt8Ppm: millionths(j.GateInt8), GateStudentPpm: millionths(j.GateStudent), StudentHidden: j.StudentHidden,
		StudentRows: j.StudentRows, StudentTemperature: j.StudentTemperature, StudentEpochs: j.StudentEpochs, StudentRate: j.StudentRate,
	}, nil
}

func millionths(x float64) int64 { return int64(x*1e6 + 0.5) }

// beside is a path that a file names: relative to the file.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}

// missing adds a hint to a file that does not exist.
func missing(what string, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return &hinted{fmt.Errorf("read %s: %w", what, err), "is the path right, and may you read it?"}
	}
	return err
}

var whereClause = regexp.MustCompile(`^([A-Za-z0-9._-]+)\s*(?:in\s*\[([^\[\]]*)\]|=\s*([^\s\[\],]+))$`)

// parseWhere reads which nodes may take part: "region in [1, 2] and tier = gold".
func parseWhere(text string) ([]*choirv1.LabelMatch, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var out []*choirv1.LabelMatch
	for _, clause := range strings.Split(text, " and ") {
		m := whereClause.FindStringSubmatch(strings.TrimSpace(clause))
		if m == nil {
			return nil, fmt.Errorf("%q, want LABEL in [VALUE, VALUE] or LABEL = VALUE, joined by and", strings.TrimSpace(clause))
		}
		match := &choirv1.LabelMatch{Label: m[1]}
		for _, v := range strings.Split(m[2]+m[3], ",") {
			if v = strings.TrimSpace(v); v == "" {
				return nil, fmt.Errorf("%q has an empty value", strings.TrimSpace(clause))
			}
			match.Values = append(match.Values, v)
		}
		out = append(out, match)
	}
	return out, nil
}

// schemaFile is a schema as people write it; the same keys as in JSON, which is YAML, too.
type schemaFile struct {
	Name    string         `yaml:"name"`
	Unit    string         `yaml:"unit"`
	Label   string         `yaml:"label"`
	Ignore  []string       `yaml:"ignore"`
	Columns []schemaColumn `yaml:"columns"`
}

type schemaColumn struct {
	Name       string   `yaml:"name"`
	Kind       string   `yaml:"kind"`
	Min        float64  `yaml:"min"`
	Max        float64  `yaml:"max"`
	Categories []string `yaml:"categories"`
	LongTail   bool     `yaml:"longTail"`
	Required   bool     `yaml:"required"`
	Length     int      `yaml:"length"`
	Buckets    int      `yaml:"buckets"`
	Words      int      `yaml:"words"`
	Characters int      `yaml:"characters"`
	Seed       uint64   `yaml:"seed"`
	Of         string   `yaml:"of"`
	By         string   `yaml:"by"`
}

// readSchema reads a schema file.
func readSchema(path string) (*data.Schema, error) {
	var f schemaFile
	if err := readYAML(path, &f); err != nil {
		return nil, missing("schema", err)
	}
	s := &data.Schema{Name: f.Name, Unit: f.Unit, Label: f.Label, Ignore: f.Ignore}
	for _, c := range f.Columns {
		s.Columns = append(s.Columns, data.Column{
			Name: c.Name, Kind: data.Kind(c.Kind), Min: c.Min, Max: c.Max, Categories: c.Categories, LongTail: c.LongTail, Required: c.Required,
			Length: c.Length, Buckets: c.Buckets, Words: c.Words, Characters: c.Characters, Seed: c.Seed, Of: c.Of, By: c.By,
		})
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", place(path, schemaKeys(&f, err)...), err)
	}
	return s, nil
}

var schemaColumnIn = regexp.MustCompile(`^schema .*?: column (\d+): name `)

// schemaKeys leads to what a message about a schema is about.
func schemaKeys(f *schemaFile, err error) []any {
	text := err.Error()
	if m := schemaColumnIn.FindStringSubmatch(text); m != nil {
		i, _ := strconv.Atoi(m[1]) // digits
		return []any{"columns", i - 1, "name"}
	}
	for i, c := range f.Columns {
		if strings.HasPrefix(text, fmt.Sprintf("schema %s: column %s: ", f.Name, c.Name)) {
			return []any{"columns", i}
		}
	}
	for key, sign := range map[string]string{"label": ": label ", "columns": " columns, want", "name": "name and unit"} {
		if strings.Contains(text, sign) {
			return []any{key}
		}
	}
	return []any{"columns"}
}

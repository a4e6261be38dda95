package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// predictCommand is `choir predict`.
type predictCommand struct {
	serverFlag
	outputFlag
	Name   string   `arg:"" help:"The model's name."`
	Values []string `arg:"" optional:"" help:"KEY=VALUE for each input; what is left out is missing." placeholder:"KEY=VALUE"`
}

// Help is what --help explains.
func (predictCommand) Help() string {
	return `Asks the node on this machine, over the Open Inference Protocol. The answer's id is what choir feedback wants.

Example: choir predict purchase pages=12 minutes=7.5 weekend=true`
}

// serverFlag finds the prediction server.
type serverFlag struct {
	nodeFlag
	URL   string `name:"url" help:"The prediction server. Default: the address in the node's configuration." placeholder:"URL"`
	Token string `name:"token-file" help:"File of the bearer token. Default: http.token in the node's directory." placeholder:"FILE" type:"path"`
	CA    string `name:"ca" help:"Certificate to trust for an https URL, PEM. Default: the one in the node's configuration." placeholder:"FILE" type:"path"`
}

// server is where to send requests, and with which token.
type server struct {
	url    string
	bearer string
	client *http.Client
}

// server finds address and token; the token may be missing where it is not needed.
func (s serverFlag) server() (*server, error) {
	out := &server{url: strings.TrimRight(s.URL, "/"), client: &http.Client{Timeout: 30 * time.Second}}
	if u, err := url.Parse(out.url); s.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return nil, &usageError{fmt.Sprintf("--url is %q, want the address of a prediction server", s.URL), "give one such as http://127.0.0.1:8080"}
	}
	path, ca := s.Token, s.CA
	if s.URL == "" || path == "" {
		file, err := s.file()
		switch {
		case err != nil && s.URL == "":
			return nil, err
		case err == nil && s.URL == "" && file.HTTP == "":
			return nil, &hinted{errors.New("the node's configuration names no prediction server"), "set http: 127.0.0.1:8080 in it"}
		case err == nil && s.URL == "":
			out.url = "http://" + file.HTTP
			if file.Certificate != "" {
				out.url = "https://" + file.HTTP
				ca = firstOf(ca, file.Certificate)
			}
		}
		if err == nil && path == "" {
			path = filepath.Join(file.Dir, "http.token")
		}
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", ca)
		}
		out.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	}
	token, err := readLine("token file", path)
	if err == nil {
		out.bearer = token
	} else if s.Token != "" || !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return out, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// call sends JSON, or nothing for nil, and decodes the answer.
func (s *server) call(ctx context.Context, method, path string, body, into any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, r)
	if err != nil {
		return fmt.Errorf("ask the node at %s: %w", s.url, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+s.bearer)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return &hinted{fmt.Errorf("ask the node: %w", err), "does the node run, and is that the http address in its configuration?"}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return serverError(resp.StatusCode, b)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s answered no JSON: %w", s.url, err)
	}
	return nil
}

// serverError is what the node said.
func serverError(code int, body []byte) error {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) != nil || said.Error == "" {
		said.Error = http.StatusText(code)
	}
	err := fmt.Errorf("the node answered: %s", said.Error)
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &hinted{err, "the token lies in http.token in the node's directory; name it with --token-file"}
	case http.StatusNotFound:
		if strings.Contains(said.Error, "not remembered") {
			return &hinted{err, "send the inputs along: choir feedback ID yes KEY=VALUE …"}
		}
		return &hinted{err, "choir node status shows which models are here"}
	}
	return err
}

// tensorView is an input or output of the protocol.
type tensorView struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     []any  `json:"data,omitempty"`
}

// prediction is the protocol's answer.
type prediction struct {
	ModelName    string            `json:"model_name"`
	ModelVersion string            `json:"model_version"`
	Parameters   map[string]string `json:"parameters"`
	Outputs      []tensorView      `json:"outputs"`
}

// Run asks for a prediction.
func (c *predictCommand) Run(ctx context.Context, t *terminal) error {
	s, err := c.server()
	if err != nil {
		return err
	}
	path := "/v2/models/" + url.PathEscape(c.Name)
	inputs, err := s.inputs(ctx, path, c.Values)
	if err != nil {
		return err
	}
	var answer prediction
	if err := s.call(ctx, http.MethodPost, path+"/infer", map[string]any{"inputs": inputs}, &answer); err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, answer)
	}
	for _, o := range answer.Outputs {
		fmt.Fprintf(t.out, "%s %v\n", o.Name, fmt.Sprint(o.Data...))
	}
	_, err = fmt.Fprintf(t.out, "model %s, release %s, %s; prediction %s\n", answer.ModelName, answer.ModelVersion, answer.Parameters["variant"], answer.Parameters["prediction_id"])
	return err
}

// inputs makes a model's inputs of KEY=VALUE.
func (s *server) inputs(ctx context.Context, path string, values []string) ([]tensorView, error) {
	var meta struct {
		Inputs []tensorView `json:"inputs"`
	}
	if err := s.call(ctx, http.MethodGet, path, nil, &meta); err != nil {
		return nil, err
	}
	columns := slices.DeleteFunc(meta.Inputs, func(in tensorView) bool { return len(in.Shape) > 1 }) // features, all in one
	return tensors(columns, values)
}

// tensors makes inputs of one row from KEY=VALUE.
func tensors(known []tensorView, values []string) ([]tensorView, error) {
	out := []tensorView{}
	if len(values) == 0 {
		return nil, &usageError{"no inputs are given", "give KEY=VALUE for what is known of " + strings.Join(names(known), ", ")}
	}
	for _, text := range values {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, &usageError{fmt.Sprintf("%q is no KEY=VALUE", text), "choir predict NAME pages=12 weekend=true"}
		}
		i := slices.IndexFunc(known, func(in tensorView) bool { return in.Name == key })
		if i < 0 {
			return nil, &usageError{fmt.Sprintf("the model has no input %q", key), suggest(key, names(known))}
		}
		if slices.ContainsFunc(out, func(in tensorView) bool { return in.Name == key }) {
			return nil, &usageError{fmt.Sprintf("%s is given twice", key), ""}
		}
		v, err := typed(known[i].Datatype, value)
		if err != nil {
			return nil, &usageError{fmt.Sprintf("%s is %q, want %v", key, value, err), ""}
		}
		out = append(out, tensorView{Name: key, Datatype: known[i].Datatype, Shape: []int{1}, Data: []any{v}})
	}
	return out, nil
}

func names(inputs []tensorView) (out []string) {
	for _, in := range inputs {
		out = append(out, in.Name)
	}
	return out
}

// typed is a value of the protocol's type.
func typed(datatype, value string) (any, error) {
	switch datatype {
	case "BOOL":
		if value != "true" && value != "false" {
			return nil, errors.New("true or false")
		}
		return value == "true", nil
	case "BYTES":
		return value, nil
	}
	x, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return nil, errors.New("a number")
	}
	return x, nil
}

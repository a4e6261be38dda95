package model

import (
	"encoding/binary"
	"math"
)

// ONNX files are protocol buffers. What we write of onnx.proto is a dozen messages of a few fields, written here one by
// one: code generated for the whole of it would be many times as long, of use to nobody who reads, and part of every
// binary. Field numbers are those of onnx.proto, https://github.com/onnx/onnx/blob/v1.10.0/onnx/onnx.proto.

// message is an encoded protocol buffer message.
type message []byte

// Wire types of protocol buffers.
const (
	wireVarint = 0
	wireBytes  = 2
	wireFixed  = 5 // 32 bits
)

func (m *message) tag(field, wire uint64) { *m = binary.AppendUvarint(*m, field<<3|wire) }

func (m *message) integer(field uint64, v int64) {
	m.tag(field, wireVarint)
	*m = binary.AppendUvarint(*m, uint64(v))
}

func (m *message) float(field uint64, v float32) {
	m.tag(field, wireFixed)
	*m = binary.LittleEndian.AppendUint32(*m, math.Float32bits(v))
}

// bytes adds a field of bytes, a text or a message.
func (m *message) bytes(field uint64, b []byte) {
	m.tag(field, wireBytes)
	*m = binary.AppendUvarint(*m, uint64(len(b)))
	*m = append(*m, b...)
}

func (m *message) text(field uint64, s string) { m.bytes(field, []byte(s)) }

// onnxType is a type of elements, a value of TensorProto.DataType.
type onnxType int64

// Types that we use.
const (
	onnxFloat  onnxType = 1
	onnxInt8   onnxType = 3
	onnxInt64  onnxType = 7
	onnxString onnxType = 8
	onnxBool   onnxType = 9
)

// onnxTensor is a TensorProto; raw holds the elements, little-endian.
func onnxTensor(name string, kind onnxType, shape []int, raw []byte) message {
	m := make(message, 0, len(raw)+len(name)+64)
	for _, d := range shape {
		m.integer(1, int64(d))
	}
	m.integer(2, int64(kind))
	m.text(8, name)
	m.bytes(9, raw)
	return m
}

// onnxAttribute is an AttributeProto: a setting of an operator.
type onnxAttribute message

func newAttribute(name string, kind int64) message {
	var m message
	m.text(1, name)
	m.integer(20, kind)
	return m
}

func floatAttribute(name string, v float32) onnxAttribute {
	m := newAttribute(name, 1)
	m.float(2, v)
	return onnxAttribute(m)
}

func intAttribute(name string, v int) onnxAttribute {
	m := newAttribute(name, 2)
	m.integer(3, int64(v))
	return onnxAttribute(m)
}

func tensorAttribute(name string, t message) onnxAttribute {
	m := newAttribute(name, 4)
	m.bytes(5, t)
	return onnxAttribute(m)
}

func intsAttribute(name string, v ...int) onnxAttribute {
	m := newAttribute(name, 7)
	for _, x := range v {
		m.integer(8, int64(x))
	}
	return onnxAttribute(m)
}

func textsAttribute(name string, v []string) onnxAttribute {
	m := newAttribute(name, 8)
	for _, x := range v {
		m.text(9, x)
	}
	return onnxAttribute(m)
}

// onnxOperator is a NodeProto.
func onnxOperator(kind, domain string, in, out []string, attributes []onnxAttribute) message {
	var m message
	for _, name := range in {
		m.text(1, name)
	}
	for _, name := range out {
		m.text(2, name)
	}
	m.text(3, out[0])
	m.text(4, kind)
	for _, a := range attributes {
		m.bytes(5, a)
	}
	if domain != "" {
		m.text(7, domain)
	}
	return m
}

// onnxInfo is a ValueInfoProto: an input or output of a graph, or a value between. Its first axis counts examples, as many as a caller has.
func onnxInfo(name string, kind onnxType, shape []int) message {
	var dims, batch message
	batch.text(2, "batch")
	dims.bytes(1, batch)
	for _, d := range shape {
		var dim message
		dim.integer(1, int64(d))
		dims.bytes(1, dim)
	}
	var tensor, whole, m message
	tensor.integer(1, int64(kind))
	tensor.bytes(2, dims)
	whole.bytes(1, tensor)
	m.text(1, name)
	m.bytes(2, whole)
	return m
}

// onnxVersion is an OperatorSetIdProto: the operators of a domain as they were in a version.
func onnxVersion(domain string, version int64) message {
	var m message
	m.text(1, domain)
	m.integer(2, version)
	return m
}

// onnxProperty is a StringStringEntryProto.
func onnxProperty(key, value string) message {
	var m message
	m.text(1, key)
	m.text(2, value)
	return m
}

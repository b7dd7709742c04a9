package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// mistake is what is wrong with the setting of a path.
type mistake struct{ path, text string }

// kinds compares a decoded text with the type it is for: keys that the type
// does not have, values of another kind, whole numbers outside the range of the
// tags min and max. Done before the text is decoded into the type, it knows
// which element of an array is wrong; the decoder does not.
func kinds(typ reflect.Type, value any, path string) []mistake {
	wrong := func(want string) []mistake {
		return []mistake{{path, fmt.Sprintf("%s: it must be %s, not %s", plain(path), want, kindName(value))}}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return kinds(typ.Elem(), value, path)
	case reflect.String:
		if _, ok := value.(string); !ok {
			return wrong(`a text in quotes`)
		}
	case reflect.Bool:
		if _, ok := value.(bool); !ok {
			return wrong("true or false")
		}
	case reflect.Int:
		if _, ok := value.(int64); !ok {
			return wrong("a whole number")
		}
	case reflect.Slice:
		list := reflect.ValueOf(value)
		if list.Kind() != reflect.Slice {
			if typ.Elem().Kind() == reflect.Struct {
				return wrong(fmt.Sprintf("tables, each under a line [[%s]]", plain(path)))
			}
			return wrong("a list in [ ]")
		}
		var all []mistake
		for i := range list.Len() {
			all = append(all, kinds(typ.Elem(), list.Index(i).Interface(), fmt.Sprintf("%s[%d]", path, i))...)
		}
		return all
	case reflect.Struct:
		table, ok := value.(map[string]any)
		if !ok {
			return wrong(fmt.Sprintf("a table: [%s]", plain(path)))
		}
		return tableKinds(typ, table, path)
	}
	return nil
}

func tableKinds(typ reflect.Type, table map[string]any, path string) []mistake {
	var all []mistake
	var names []string
	for i := range typ.NumField() {
		field := typ.Field(i)
		name := field.Tag.Get("toml")
		names = append(names, name)
		value, set := table[name]
		if !set {
			continue
		}
		wrong := kinds(field.Type, value, join(path, name))
		if len(wrong) == 0 {
			wrong = inRange(field.Tag, value, join(path, name))
		}
		all = append(all, wrong...)
	}
	for name := range table {
		if _, known := fieldOf(typ, name); !known {
			text := fmt.Sprintf("there is no setting %q; the settings are: %s", name, strings.Join(names, ", "))
			if path != "" {
				text = fmt.Sprintf("there is no setting %q in %s; its settings are: %s", name, plain(path), strings.Join(names, ", "))
			}
			all = append(all, mistake{join(path, visible(name)), text})
		}
	}
	return all
}

func fieldOf(typ reflect.Type, name string) (reflect.StructField, bool) {
	for i := range typ.NumField() {
		if field := typ.Field(i); field.Tag.Get("toml") == name {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// inRange checks a whole number against the tags min and max of its field. In
// the types 0 means "not set", so that the text itself must be asked.
func inRange(tag reflect.StructTag, value any, path string) []mistake {
	n, whole := value.(int64)
	if !whole || tag.Get("max") == "" {
		return nil
	}
	low, _ := strconv.ParseInt(tag.Get("min"), 10, 64)
	high, _ := strconv.ParseInt(tag.Get("max"), 10, 64)
	if n < low || n > high {
		return []mistake{{path, fmt.Sprintf("%s: %d: it is from %d to %d", plain(path), n, low, high)}}
	}
	return nil
}

// kindName says what a decoded value is.
func kindName(value any) string {
	switch value.(type) {
	case string:
		return "a text"
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case map[string]any:
		return "a table"
	case []map[string]any, []any:
		return "a list"
	}
	return "a date or time"
}

// plain is a path as people write it: without the numbers of elements.
func plain(path string) string {
	return regexp.MustCompile(`\[[0-9]+\]`).ReplaceAllString(path, "")
}

// Keys lists the names of all settings; those of tables are dotted.
func Keys() []string { return keysOf(reflect.TypeFor[Config](), "") }

func keysOf(typ reflect.Type, prefix string) []string {
	var keys []string
	for i := range typ.NumField() {
		field := typ.Field(i)
		key := join(prefix, field.Tag.Get("toml"))
		t := field.Type
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() == reflect.Struct {
			keys = append(keys, keysOf(t, key)...)
		} else {
			keys = append(keys, key)
		}
	}
	return keys
}

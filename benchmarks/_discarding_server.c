/* A minimal S3 and Google Cloud Storage server that discards the bodies it receives, and serves zeros.
 *
 * It stores nothing, and uses as little CPU time as it can, so that the client is what a benchmark measures:
 * one thread, one epoll loop. The kernel drops the bodies of requests without copying them (MSG_TRUNC).
 * Linux only.
 *
 * The size of an object is the number at the end of its key. Two kinds of keys test how a client handles
 * failures: the first GET or HEAD of a "busy" key gets a 503, and a "flipped" object has a wrong byte.
 *
 *     cc -O2 -o server _discarding_server.c
 *     ./server [LISTED_KEYS [RATE ROUND_TRIP]]    # prints its port, and runs until its input ends
 *
 * With a RATE in bytes per second and a ROUND_TRIP in seconds, each connection is as slow as one to a distant service:
 * it carries at most RATE each way, and a response begins ROUND_TRIP after the end of its request.
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    KiB = 1024,
    MiB = 1024 * KiB,
    MAX_HEAD = 64 * KiB,
    MAX_HEADERS = 64,
    MAX_DOCUMENT = 4 * MiB,  /* a bulk delete of 1,000 keys of 1 KiB */
    MAX_RESOURCE = 4 * KiB,  /* the metadata before the content of an upload */
    MAX_KEY = 4 * KiB,
    KEYS_PER_PAGE = 1000,
    SLOW_PIECE = 64 * KiB,   /* received or sent at once on a slow connection */
    SLOW_BUFFER = 512 * KiB, /* of the socket of a slow connection; it must not hide that it is slow */
    ZEROS = 256 * KiB,       /* sent at once; they stay in the processor's cache (sendfile is not faster) */
};

#define GENERATION "1735689600000000"
#define LAST_MODIFIED "Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n"
#define ETAG "\"0123456789abcdef0123456789abcdef\""
#define XML_NAMESPACE "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

#define SLACK 0.005          /* seconds that a slow connection may catch up: timers are inexact */

static unsigned listed_keys = 10000;
static double rate, round_trip;  /* 0: no limit */
static char zeros[ZEROS];

/* -- text ------------------------------------------------------------------------------------------- */

struct text {
    char *data;
    size_t size, capacity;
};

static void reserve(struct text *text, size_t size)
{
    if (text->capacity >= size)
        return;
    text->capacity = size * 2;
    text->data = realloc(text->data, text->capacity);
    if (!text->data)
        abort();
}

static void append_bytes(struct text *text, const char *data, size_t size)
{
    reserve(text, text->size + size);
    memcpy(text->data + text->size, data, size);
    text->size += size;
}

__attribute__((format(printf, 2, 3))) static void append(struct text *text, const char *format, ...)
{
    for (size_t room = 512;; room *= 4) {
        va_list arguments;
        reserve(text, text->size + room);
        va_start(arguments, format);
        int size = vsnprintf(text->data + text->size, room, format, arguments);
        va_end(arguments);
        if (size >= 0 && (size_t)size < room) {
            text->size += size;
            return;
        }
    }
}

static int hex_digit(char digit)
{
    return isdigit((unsigned char)digit) ? digit - '0' : tolower((unsigned char)digit) - 'a' + 10;
}

/* Decode percent-encoded text of a URL, up to one of the bytes in `ends`. */
static void decode(char *decoded, size_t capacity, const char *encoded, const char *ends)
{
    size_t size = 0;
    while (*encoded && !strchr(ends, *encoded) && size + 1 < capacity) {
        char byte = *encoded++;
        if (byte == '%' && isxdigit((unsigned char)encoded[0]) && isxdigit((unsigned char)encoded[1])) {
            byte = (char)(hex_digit(encoded[0]) * 16 + hex_digit(encoded[1]));
            encoded += 2;
        }
        decoded[size++] = byte;
    }
    decoded[size] = 0;
}

/* -- CRC-32C of zeros ------------------------------------------------------------------------------- */

/* Multiply a vector of 32 bits with a matrix over GF(2). */
static uint32_t multiply(const uint32_t *matrix, uint32_t vector)
{
    uint32_t product = 0;
    for (; vector; vector >>= 1, matrix++)
        if (vector & 1)
            product ^= *matrix;
    return product;
}

/* Return the CRC-32C of `size` zeros: the register, multiplied with the matrix of a zero bit for each bit. */
static uint32_t crc32c_of_zeros(uint64_t size)
{
    static struct { uint64_t size; uint32_t crc; bool known; } cache[64];
    size_t slot = size % 61;
    if (cache[slot].known && cache[slot].size == size)
        return cache[slot].crc;
    uint32_t matrix[32] = {0x82F63B78}, square[32], crc = UINT32_MAX;
    for (int bit = 1; bit < 32; bit++)
        matrix[bit] = 1U << (bit - 1);
    for (uint64_t bits = size * 8; bits; bits >>= 1) {
        if (bits & 1)
            crc = multiply(matrix, crc);
        for (int bit = 0; bit < 32; bit++)
            square[bit] = multiply(matrix, matrix[bit]);
        memcpy(matrix, square, sizeof matrix);
    }
    cache[slot].size = size;
    cache[slot].crc = ~crc;
    cache[slot].known = true;
    return ~crc;
}

/* Return a CRC in base64, as services write it: eight characters. */
static const char *crc_text(uint32_t crc)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static char text[9];
    for (int place = 0; place < 5; place++)
        text[place] = digits[crc >> (26 - 6 * place) & 63];
    text[5] = digits[crc << 4 & 63];
    text[6] = text[7] = '=';
    return text;
}

/* -- connections ------------------------------------------------------------------------------------ */

struct header {
    const char *name, *value;
};

struct connection {
    int fd;
    bool waits_for_room;  /* the socket has not taken the whole response yet */

    /* The request. Its head stays in `in` until the response is made. */
    char in[MAX_HEAD + 1];
    size_t filled, head_size;
    uint64_t body_size, body_left;
    struct text document;  /* the start of the body of a POST */
    size_t document_limit;
    char *method, *path, *query;
    bool is_google;  /* the request is not signed as those to S3 are */
    struct header headers[MAX_HEADERS];
    int header_count;

    /* The response: `out`, then zeros. */
    struct text out;
    size_t out_sent;
    uint64_t zeros_left;

    /* A slow connection. */
    double due;  /* the time at which it may continue */
    bool sleeps;
    struct connection *next_sleeper;
};

static const char *header(const struct connection *c, const char *name)
{
    for (int n = 0; n < c->header_count; n++)
        if (!strcasecmp(c->headers[n].name, name))
            return c->headers[n].value;
    return NULL;
}

/* Return the encoded value of a parameter of the query, which ends with "&" or the query; NULL: it is missing. */
static const char *parameter(const struct connection *c, const char *name)
{
    size_t size = strlen(name);
    for (const char *field = c->query; field && *field; field++) {
        if (!strncmp(field, name, size) && strchr("=&", field[size]))
            return field + size + (field[size] == '=');
        field = strchr(field, '&');
        if (!field)
            break;
    }
    return NULL;
}

/* Answer with a body; `lines` are further headers, each with its end. */
static void answer(struct connection *c, const char *status, const char *lines, const struct text *body)
{
    size_t size = body ? body->size : 0;
    append(&c->out, "HTTP/1.1 %s\r\n%sx-amz-request-id: 0\r\n", status, lines);
    if (strncmp(status, "204", 3))
        append(&c->out, "Content-Length: %zu\r\n", size);
    append(&c->out, "\r\n");
    if (size)
        append_bytes(&c->out, body->data, size);
}

/* -- objects and listings --------------------------------------------------------------------------- */

/* Return whether this is the first request for a busy key. */
static bool is_busy(const char *key)
{
    static char **rejected;
    static size_t count;
    if (!strstr(key, "busy"))
        return false;
    for (size_t n = 0; n < count; n++)
        if (!strcmp(rejected[n], key))
            return false;
    rejected = realloc(rejected, (count + 1) * sizeof *rejected);
    if (!rejected || !(rejected[count++] = strdup(key)))
        abort();
    return true;
}

static uint64_t size_of(const char *key)
{
    const char *digits = key + strlen(key);
    while (digits > key && isdigit((unsigned char)digits[-1]))
        digits--;
    return strtoull(digits, NULL, 10);
}

/* Parse the Range. Return false if it starts behind the end. */
static bool parse_range(const char *range, uint64_t size, uint64_t *start, uint64_t *end)
{
    char *rest;
    range += strlen("bytes=");
    if (*range == '-') {
        uint64_t count = strtoull(range + 1, NULL, 10);
        *start = count < size ? size - count : 0;
        return size > 0;
    }
    *start = strtoull(range, &rest, 10);
    if (rest[0] == '-' && isdigit((unsigned char)rest[1])) {
        uint64_t last = strtoull(rest + 1, NULL, 10);
        *end = last < size ? last + 1 : size;
    }
    return *start < size;
}

/* Answer with an object's metadata as headers, and with its body unless the method is HEAD. */
static void serve_object(struct connection *c, const char *key)
{
    struct text *out = &c->out;
    const char *range = header(c, "range");
    uint64_t size = size_of(key), start = 0, end = size;
    if (is_busy(key)) {
        answer(c, "503 Slow Down", "Retry-After: 0\r\n", NULL);
        return;
    }
    if (range && !parse_range(range, size, &start, &end)) {
        answer(c, "416 Range Not Satisfiable", "", NULL);
        return;
    }
    append(out, "HTTP/1.1 %s\r\nETag: " ETAG "\r\n" LAST_MODIFIED, range ? "206 Partial Content" : "200 OK");
    if (range)
        append(out, "Content-Range: bytes %ju-%ju/%ju\r\n", (uintmax_t)start, (uintmax_t)end - 1,
               (uintmax_t)size);
    const char *crc = crc_text(crc32c_of_zeros(size));
    if (c->is_google)
        append(out, "x-goog-generation: " GENERATION "\r\nx-goog-metageneration: 1\r\nx-goog-hash: crc32c=%s\r\n"
                    "x-goog-stored-content-encoding: identity\r\nx-goog-stored-content-length: %ju\r\n"
                    "x-goog-storage-class: STANDARD\r\n", crc, (uintmax_t)size);
    else if (!range)
        append(out, "x-amz-checksum-crc32c: %s\r\nx-amz-checksum-type: FULL_OBJECT\r\n", crc);
    append(out, "Content-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\nContent-Length: %ju\r\n"
                "x-amz-request-id: 0\r\n\r\n", (uintmax_t)(end - start));
    if (!strcmp(c->method, "HEAD") || start == end)
        return;
    c->zeros_left = end - start;
    if (strstr(key, "flipped")) {
        append_bytes(out, "\1", 1);
        c->zeros_left--;
    }
}

#define LISTED_KEY "listed/%05u/%07u.bin"

struct page {
    unsigned start, end;
    bool has_more;
};

/* Return the page that starts with a number; its entries are the numbers of keys. */
static struct page page_of(const struct connection *c, unsigned start, const char *limit)
{
    unsigned count = limit ? strtoul(limit, NULL, 10) : KEYS_PER_PAGE;
    char prefix[MAX_KEY] = "";
    if (parameter(c, "prefix"))
        decode(prefix, sizeof prefix, parameter(c, "prefix"), "&");
    if (start > listed_keys || strncmp(prefix, "listed/", strlen(prefix)))
        start = listed_keys;
    if (count > KEYS_PER_PAGE)
        count = KEYS_PER_PAGE;
    if (count > listed_keys - start)
        count = listed_keys - start;
    return (struct page){start, start + count, start + count < listed_keys};
}

/* -- the API of S3, and the XML API of Google -------------------------------------------------------- */

/* Answer with a page of the listing. The token of a page is the number of its first key. */
static void list_objects(struct connection *c)
{
    static struct text body;
    const char *token = parameter(c, "continuation-token");
    struct page page = page_of(c, token ? strtoul(token, NULL, 10) : 0, parameter(c, "max-keys"));
    body.size = 0;
    append(&body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult " XML_NAMESPACE
                  "><Name>bench</Name><Prefix>listed/</Prefix><KeyCount>%u</KeyCount><MaxKeys>%u</MaxKeys>"
                  "<IsTruncated>%s</IsTruncated>",
           page.end - page.start, KEYS_PER_PAGE, page.has_more ? "true" : "false");
    if (page.has_more)
        append(&body, "<NextContinuationToken>%u</NextContinuationToken>", page.end);
    for (unsigned n = page.start; n < page.end; n++)
        append(&body,
               "<Contents><Key>" LISTED_KEY "</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
               "<ETag>&quot;%032x&quot;</ETag><ChecksumAlgorithm>CRC32C</ChecksumAlgorithm>"
               "<ChecksumType>FULL_OBJECT</ChecksumType><Size>%u</Size><StorageClass>STANDARD</StorageClass>"
               "</Contents>", n / 100, n, n, n);
    append(&body, "</ListBucketResult>");
    answer(c, "200 OK", "Content-Type: application/xml\r\n", &body);
}

static void delete_objects(struct connection *c)
{
    static struct text body;
    body.size = 0;
    append(&body, "<DeleteResult " XML_NAMESPACE ">");
    for (const char *key = c->document.data; (key = strstr(key, "<Key>")); key++) {
        const char *end = strstr(key, "</Key>");
        if (!end)
            break;
        append(&body, "<Deleted>%.*s</Key></Deleted>", (int)(end - key), key);
    }
    append(&body, "</DeleteResult>");
    answer(c, "200 OK", "Content-Type: application/xml\r\n", &body);
}

/* Answer with the result of a multipart request. */
static void answer_xml(struct connection *c, const char *operation, const char *field, const char *value,
                       const char *key, const char *lines)
{
    static struct text body;
    body.size = 0;
    append(&body, "<%sResult " XML_NAMESPACE "><Bucket>bench</Bucket><Key>%s</Key><%s>%s</%s></%sResult>",
           operation, key, field, value, field, operation);
    answer(c, "200 OK", lines, &body);
}

static void respond_s3(struct connection *c)
{
    char key[MAX_KEY], lines[MAX_KEY] = "";
    const char *encoded_key = strchr(c->path + 1, '/');
    encoded_key = encoded_key ? encoded_key + 1 : "";
    decode(key, sizeof key, encoded_key, "");
    /* 1. A write returns the checksums that it received, and an ETag. */
    size_t used = snprintf(lines, sizeof lines, "ETag: " ETAG "\r\n%s",
                           c->is_google ? "x-goog-generation: " GENERATION "\r\n" : "");
    for (int n = 0; n < c->header_count && used < sizeof lines; n++) {
        const char *name = c->headers[n].name;
        if (!strncasecmp(name, "x-amz-checksum-", 15) && strcasecmp(name + 15, "mode")
            && strcasecmp(name + 15, "algorithm"))
            used += snprintf(lines + used, sizeof lines - used, "%s: %s\r\n", name, c->headers[n].value);
    }
    /* 2. Bulk deletes and listings have no key. */
    bool is_post = !strcmp(c->method, "POST");
    if (is_post && parameter(c, "delete"))
        delete_objects(c);
    else if (!*key && parameter(c, "list-type"))
        list_objects(c);
    else if (!*key)
        answer(c, "200 OK", "", NULL);
    /* 3. Objects. */
    else if (is_post && parameter(c, "uploads"))
        answer_xml(c, "InitiateMultipartUpload", "UploadId", "1", encoded_key, "");
    else if (is_post)
        answer_xml(c, "CompleteMultipartUpload", "ETag", ETAG, encoded_key, lines);
    else if (!strcmp(c->method, "PUT"))
        answer(c, "200 OK", lines, NULL);
    else if (!strcmp(c->method, "DELETE"))
        answer(c, "204 No Content", "", NULL);
    else
        serve_object(c, key);
}

/* -- the JSON API of Google -------------------------------------------------------------------------- */

static void answer_json(struct connection *c, const char *status, const struct text *body)
{
    answer(c, status, "Content-Type: application/json; charset=UTF-8\r\n", body);
}

/* Append the inside of a JSON string. */
static void append_escaped(struct text *text, const char *value)
{
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            append_bytes(text, "\\", 1);
        append_bytes(text, value, 1);
    }
}

/* Append the resource of an object. The name is escaped; the CRC may be empty, if it is not known. */
static void append_resource(const struct connection *c, struct text *body, const char *name, uint64_t size,
                            const char *crc)
{
    append(body, "{\"name\":\"%s\",\"generation\":\"" GENERATION "\",\"size\":\"%ju\","
                 "\"contentType\":\"application/octet-stream\",\"storageClass\":\"STANDARD\","
                 "\"updated\":\"2025-01-01T00:00:00.000Z\"", name, (uintmax_t)size);
    if (*crc)
        append(body, ",\"crc32c\":\"%s\"", crc);
    if (!parameter(c, "fields"))
        append(body, ",\"kind\":\"storage#object\",\"id\":\"bench/%s/" GENERATION "\",\"bucket\":\"bench\","
                     "\"metageneration\":\"1\",\"etag\":\"CAE=\",\"timeCreated\":\"2025-01-01T00:00:00.000Z\"",
               name);
    append(body, "}");
}

static void answer_resource(struct connection *c, const char *name, uint64_t size, const char *crc)
{
    static struct text body;
    body.size = 0;
    append_resource(c, &body, name, size, crc);
    answer_json(c, "200 OK", &body);
}

/* Copy the value of a field of a JSON document, still escaped. It is empty if there is no such field. */
static void copy_field(char *value, size_t capacity, const char *document, const char *quoted_name)
{
    size_t size = 0;
    const char *found = strstr(document, quoted_name);
    if (found) {
        found += strlen(quoted_name);
        found += strspn(found, ": ");
        if (*found++ == '"')
            for (; *found && *found != '"' && size + 2 < capacity; found++) {
                if (*found == '\\' && found[1])
                    value[size++] = *found++;
                value[size++] = *found;
            }
    }
    value[size] = 0;
}

/* Return the size of the content of a multipart/related body, of which only the start was kept. */
static uint64_t content_size(const struct connection *c)
{
    const char *type = header(c, "content-type"), *boundary = type ? strstr(type, "boundary=") : NULL;
    if (!boundary)
        return 0;
    boundary += strlen("boundary=");
    boundary += *boundary == '"';
    size_t length = strcspn(boundary, "\";");
    /* 1. The content starts behind the second empty line. gcsfs ends lines without a carriage return. */
    const char *text = c->document.data, *line_end = strstr(text, "\r\n") ? "\r\n" : "\n";
    const char *empty_line = *line_end == '\r' ? "\r\n\r\n" : "\n\n";
    const char *metadata = strstr(text, empty_line);
    const char *content = metadata ? strstr(metadata + strlen(empty_line), empty_line) : NULL;
    if (!content)
        return 0;
    uint64_t start = content - text + strlen(empty_line);
    /* 2. The last boundary is a line of its own; only gcsfs does not end it. */
    uint64_t end = c->body_size - (strlen(line_end) + 2 + length + 2) - (*line_end == '\r' ? 2 : 0);
    return end > start ? end - start : 0;
}

/* Respond to a request of a resumable session, whose only state is in its URL and in the Content-Range. */
static void respond_session(struct connection *c)
{
    static struct text name;
    char key[MAX_KEY], lines[128], crc[16] = "";
    const char *range = header(c, "content-range"), *hash = header(c, "x-goog-hash");
    const char *total = range ? strchr(range, '/') : NULL, *last = range ? strchr(range, '-') : NULL;
    if (!strcmp(c->method, "DELETE")) {
        answer(c, "499 Client Closed Request", "", NULL);
        return;
    }
    uint64_t size = total && isdigit((unsigned char)total[1]) ? strtoull(total + 1, NULL, 10) : 0;
    uint64_t end = last ? strtoull(last + 1, NULL, 10) + 1 : size;
    if (total && (total[1] == '*' || end < size)) {
        snprintf(lines, sizeof lines, "Range: bytes=0-%ju\r\n", (uintmax_t)end - 1);
        answer(c, "308 Resume Incomplete", lines, NULL);
        return;
    }
    decode(key, sizeof key, parameter(c, "name") ? parameter(c, "name") : "", "&");
    name.size = 0;
    append_escaped(&name, key);
    append_bytes(&name, "", 1);
    if (hash && !strncmp(hash, "crc32c=", 7))
        snprintf(crc, sizeof crc, "%.8s", hash + 7);
    answer_resource(c, name.data, size, crc);
}

static void respond_upload(struct connection *c)
{
    static struct text text;
    char name[MAX_KEY] = "", crc[16];
    const char *type = parameter(c, "uploadType"), *encoded_name = parameter(c, "name");
    copy_field(crc, sizeof crc, c->document.data, "\"crc32c\"");
    /* 1. The content is the body. */
    if (type && !strncmp(type, "media", 5)) {
        decode(name, sizeof name, encoded_name ? encoded_name : "", "&");
        text.size = 0;
        append_escaped(&text, name);
        append_bytes(&text, "", 1);
        answer_resource(c, text.data, c->body_size, "");
        return;
    }
    /* 2. The metadata comes first. */
    if (encoded_name)
        decode(name, sizeof name, encoded_name, "&");
    else
        copy_field(name, sizeof name, c->document.data, "\"name\"");
    if (type && !strncmp(type, "multipart", 9)) {
        answer_resource(c, name, content_size(c), crc);
        return;
    }
    /* 3. Start a session. */
    text.size = 0;
    append(&text, "Location: http://%s/upload/session?%sname=", header(c, "host"),
           parameter(c, "fields") ? "fields=some&" : "");
    for (const char *byte = name; *byte; byte++)
        append(&text, isalnum((unsigned char)*byte) ? "%c" : "%%%02X", (unsigned char)*byte);
    append(&text, "\r\n");
    append_bytes(&text, "", 1);
    answer(c, "200 OK", text.data, NULL);
}

/* Answer with a page of the listing. A token is the number of a key, and so is the end of a start offset. */
static void list_resources(struct connection *c)
{
    static struct text body;
    char offset[MAX_KEY] = "", name[64];
    const char *token = parameter(c, "pageToken");
    unsigned start = token ? strtoul(token, NULL, 10) : 0, folder;
    if (parameter(c, "startOffset")) {
        decode(offset, sizeof offset, parameter(c, "startOffset"), "&");
        sscanf(offset, "listed/%u/%u", &folder, &start);
    }
    struct page page = page_of(c, start, parameter(c, "maxResults"));
    body.size = 0;
    append(&body, "{\"kind\":\"storage#objects\"");
    if (page.has_more)
        append(&body, ",\"nextPageToken\":\"%u\"", page.end);
    for (unsigned n = page.start; n < page.end; n++) {
        append(&body, n == page.start ? ",\"items\":[" : ",");
        snprintf(name, sizeof name, LISTED_KEY, n / 100, n);
        append_resource(c, &body, name, n, "AAAAAA==");
    }
    append(&body, page.end > page.start ? "]}" : "}");
    answer_json(c, "200 OK", &body);
}

static void respond_batch(struct connection *c)
{
    static struct text body;
    body.size = 0;
    for (const char *id = c->document.data; (id = strcasestr(id, "Content-ID: <"));) {
        id += strlen("Content-ID: <");
        append(&body, "--batch\r\nContent-Type: application/http\r\nContent-ID: <response-%.*s>\r\n\r\n"
                      "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n\r\n", (int)strcspn(id, ">"), id);
    }
    append(&body, "--batch--\r\n");
    answer(c, "200 OK", "Content-Type: multipart/mixed; boundary=batch\r\n", &body);
}

/* Respond to a request for a bucket or an object; `target` is the path behind "/storage/v1/b". */
static void respond_storage(struct connection *c, const char *target, bool is_media)
{
    static struct text text;
    char key[MAX_KEY];
    const char *objects = *target ? strchr(target + 1, '/') : NULL;  /* behind the bucket */
    text.size = 0;
    if (!strcmp(c->method, "DELETE")) {
        answer(c, "204 No Content", "", NULL);
    } else if (!objects || objects[1] != 'o') {
        append(&text, "{\"kind\":\"storage#bucket%s\",\"name\":\"bench\","
                      "\"timeCreated\":\"2025-01-01T00:00:00.000Z\"}",
               *target || !strcmp(c->method, "POST") ? "" : "s");
        answer_json(c, "200 OK", &text);
    } else if (!objects[2]) {
        list_resources(c);
    } else {
        decode(key, sizeof key, objects + 3, "");
        if (is_media || (parameter(c, "alt") && !strncmp(parameter(c, "alt"), "media", 5))) {
            serve_object(c, key);
            return;
        }
        append_escaped(&text, key);
        append_bytes(&text, "", 1);
        answer_resource(c, text.data, size_of(key), crc_text(crc32c_of_zeros(size_of(key))));
    }
}

/* Return what follows a prefix of the path, or NULL. */
static const char *behind(const char *path, const char *prefix)
{
    size_t size = strlen(prefix);
    return strncmp(path, prefix, size) ? NULL : path + size;
}

static void dispatch(struct connection *c)
{
    const char *target, *authorization = header(c, "authorization");
    c->is_google = !authorization || !behind(authorization, "AWS4-HMAC-SHA256");
    append_bytes(&c->document, "", 1);  /* so that it is a string */
    if ((target = behind(c->path, "/storage/v1/b")))
        respond_storage(c, target, false);
    else if ((target = behind(c->path, "/download/storage/v1/b")))
        respond_storage(c, target, true);
    else if (behind(c->path, "/upload/storage/v1/b"))
        respond_upload(c);
    else if (behind(c->path, "/upload/session"))
        respond_session(c);
    else if (behind(c->path, "/batch"))
        respond_batch(c);
    else
        respond_s3(c);
}

/* -- slow connections ------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Let a connection pause until `seconds` after `start`, or after the end of its pause. */
static void pause_for(struct connection *c, double seconds, double start)
{
    c->due = (c->due > start ? c->due : start) + seconds;
}

/* Return how many of some bytes a connection may move at once. */
static size_t moved_at_once(uint64_t bytes)
{
    size_t most = rate ? SLOW_PIECE : 16 * MiB;
    return bytes < most ? bytes : most;
}

/* -- HTTP ------------------------------------------------------------------------------------------- */

/* Parse the head, in place. Return false if it is malformed. */
static bool parse_head(struct connection *c)
{
    char *line = c->in, *next = strstr(line, "\r\n");
    *next = 0;
    c->method = line;
    if (!(c->path = strchr(line, ' ')))
        return false;
    *c->path++ = 0;
    char *version = strchr(c->path, ' ');
    if (!version)
        return false;
    *version = 0;
    if ((c->query = strchr(c->path, '?')))
        *c->query++ = 0;
    c->header_count = 0;
    while (*(line = next + 2) != '\r') {
        next = strstr(line, "\r\n");
        *next = 0;
        char *colon = strchr(line, ':');
        if (!colon || c->header_count == MAX_HEADERS)
            return false;
        *colon = 0;
        c->headers[c->header_count].name = line;
        c->headers[c->header_count++].value = colon + 1 + strspn(colon + 1, " ");
    }
    return !header(c, "transfer-encoding");  /* all clients know the size */
}

/* Send as much of the response as the socket takes. Return false if the connection is broken. */
static bool send_response(struct connection *c)
{
    while (c->out_sent < c->out.size || c->zeros_left) {
        struct iovec pieces[2] = {
            {c->out.data + c->out_sent, c->out.size - c->out_sent},
            {zeros, moved_at_once(c->zeros_left < ZEROS ? c->zeros_left : ZEROS)},
        };
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
        ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN;
        size_t of_out = c->out.size - c->out_sent;
        if ((size_t)sent < of_out)
            of_out = sent;
        c->out_sent += of_out;
        c->zeros_left -= sent - of_out;
        if (rate && c->zeros_left) {
            pause_for(c, sent / rate, now() - SLACK);
            return true;
        }
    }
    c->out.size = c->out_sent = 0;
    return true;
}

/* Receive once. Return false if the connection has ended. */
static bool receive(struct connection *c)
{
    ssize_t count;
    /* 1. The body: the start of a document, or bytes that the kernel drops. */
    if (c->head_size) {
        size_t wanted = c->document_limit - c->document.size;
        if (wanted > 0) {
            wanted = wanted < c->body_left ? wanted : c->body_left;
            reserve(&c->document, c->document.size + wanted);
            count = recv(c->fd, c->document.data + c->document.size, wanted, 0);
            c->document.size += count > 0 ? count : 0;
        } else {
            count = recv(c->fd, NULL, moved_at_once(c->body_left), MSG_TRUNC);
        }
        c->body_left -= count > 0 ? count : 0;
        if (rate && count > 0)
            pause_for(c, count / rate, now() - SLACK);
        return count > 0 || (count < 0 && errno == EAGAIN);
    }
    /* 2. The head, and what follows it. */
    count = recv(c->fd, c->in + c->filled, MAX_HEAD - c->filled, 0);
    if (count <= 0)
        return count < 0 && errno == EAGAIN;
    c->filled += count;
    return true;
}

/* Start a request if its whole head is there. Return false if it is malformed. */
static bool start_request(struct connection *c)
{
    c->in[c->filled] = 0;
    char *end = memmem(c->in, c->filled, "\r\n\r\n", 4);
    if (!end)
        return c->filled < MAX_HEAD;
    c->head_size = end + 4 - c->in;
    if (!parse_head(c))
        return false;
    const char *length = header(c, "content-length");
    c->body_size = c->body_left = length ? strtoull(length, NULL, 10) : 0;
    size_t received = c->filled - c->head_size;
    received = received < c->body_left ? received : c->body_left;
    c->document.size = 0;
    c->document_limit = strcmp(c->method, "POST") ? 0 : MAX_RESOURCE;
    if (c->document_limit && (parameter(c, "delete") || !strncmp(c->path, "/batch", 6)))
        c->document_limit = MAX_DOCUMENT;
    if (c->document_limit > 0)
        append_bytes(&c->document, c->in + c->head_size, received);
    if (c->document_limit > c->body_size)
        c->document_limit = c->body_size;
    if (c->document_limit < c->document.size)
        c->document_limit = c->document.size;
    c->body_left -= received;
    if (c->body_left && header(c, "expect"))
        append(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
    return true;
}

static void respond(struct connection *c)
{
    size_t used = c->head_size + (c->body_size < c->filled - c->head_size ? c->body_size
                                                                         : c->filled - c->head_size);
    dispatch(c);
    c->filled -= used;
    memmove(c->in, c->in + used, c->filled);
    c->head_size = 0;
}

/* Continue after an event. Return false if the connection has ended. */
static bool proceed(struct connection *c)
{
    if (!c->waits_for_room) {
        if (!receive(c))
            return false;
        if (!c->head_size && !start_request(c))
            return false;
        if (c->head_size && !c->body_left) {
            respond(c);
            if (round_trip) {
                pause_for(c, round_trip, now());
                return true;
            }
        }
    }
    return send_response(c);
}

/* -- the loop --------------------------------------------------------------------------------------- */

static int listen_locally(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)
        || getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("listen");
        exit(1);
    }
    int buffer = SLOW_BUFFER;
    if (rate)  /* the sockets of connections inherit it, before their windows are announced */
        setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void watch(int epoll, int operation, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, operation, fd, &event)) {
        perror("epoll_ctl");
        exit(1);
    }
}

static void accept_connection(int epoll, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    int on = 1, buffer = SLOW_BUFFER;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (rate)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->fd = fd;
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
}

static struct connection *sleepers;

static void handle(int epoll, struct connection *c)
{
    bool goes_on = proceed(c);
    bool sleeps = goes_on && c->due > now();
    bool waits_for_room = c->out.size > 0 || c->zeros_left > 0;
    if (!goes_on) {
        close(c->fd);
        free(c->document.data);
        free(c->out.data);
        free(c);
    } else if (sleeps || c->sleeps || waits_for_room != c->waits_for_room) {
        c->waits_for_room = waits_for_room;
        watch(epoll, EPOLL_CTL_MOD, c->fd, sleeps ? 0 : waits_for_room ? EPOLLOUT : EPOLLIN, c);
        if (sleeps) {
            c->next_sleeper = sleepers;
            sleepers = c;
        }
        c->sleeps = sleeps;
    }
}

/* Continue the connections whose pause has ended. Return the milliseconds to the next end of one, or -1. */
static int wake(int epoll)
{
    int timeout = -1;
    double time = now();
    struct connection *sleeping = sleepers, *next;
    sleepers = NULL;
    for (struct connection *c = sleeping; c; c = next) {
        next = c->next_sleeper;
        if (c->due <= time) {
            handle(epoll, c);
        } else {
            c->next_sleeper = sleepers;
            sleepers = c;
        }
    }
    time = now();
    for (struct connection *c = sleepers; c; c = c->next_sleeper) {
        int milliseconds = c->due > time ? (c->due - time) * 1000 + 1 : 0;
        if (timeout < 0 || milliseconds < timeout)
            timeout = milliseconds;
    }
    return timeout;
}

int main(int count, char **arguments)
{
    static int input, listening;  /* their addresses mark the events that are not a connection's */
    if (count > 1)
        listed_keys = strtoul(arguments[1], NULL, 10);
    if (count > 3) {
        rate = strtod(arguments[2], NULL);
        round_trip = strtod(arguments[3], NULL);
    }
    int epoll = epoll_create1(0), listener = listen_locally();
    watch(epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, &input);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, &listening);
    for (;;) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, wake(epoll));
        for (int n = 0; n < ready; n++) {
            void *data = events[n].data.ptr;
            if (data == &input)
                return 0;
            if (data == &listening)
                accept_connection(epoll, listener);
            else if (!((struct connection *)data)->sleeps)
                handle(epoll, data);
        }
    }
}

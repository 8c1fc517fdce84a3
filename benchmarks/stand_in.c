/* A stand-in for an Ollama server on the loopback interface: cheap, so that the client is what is measured.
 *
 * One thread, epoll, HTTP/1.1 with keep-alive. Like Ollama it writes each piece of a streamed answer as one
 * HTTP chunk with one write(), and it sends an answer under 2 KiB with a Content-Length, a longer one chunked.
 *
 *   GET /_set?tokens=16&pace_us=0&dimension=768   what the next answers look like; zeroes the counters
 *   GET /_counts                                  connections opened, open now, requests
 *
 * Build: gcc -O2 -o stand_in stand_in.c -lm.   Run: ./stand_in PORT   (0: any; the port is printed)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WORDS 1024        /* distinct pieces of a streamed answer */
#define VECTORS 64        /* distinct vectors of an embedding answer */
#define MAX_FD 8192
#define FAIR_SHARE 16     /* pieces written to one client before the next has its turn */

struct text { char *at; size_t length, room; };

struct client {
    int fd;
    bool known;                       /* counted: has asked something other than /_… */
    struct text in;
    size_t body_at, request_length;   /* 0: the head is not complete yet */
    struct text out;                  /* what must be written next */
    size_t written;
    bool streaming, watching_out;
    long next_word, last_word;
    bool generate, ended;
    double due;                       /* when the next piece may go, in seconds */
};

static struct { long tokens, pace_us, dimension; } answer_shape = {16, 0, 768};
static struct { long opened, open, requests, chat, embed, other; } counts;
static struct text words[2][WORDS];   /* HTTP chunks of /api/chat and of /api/generate */
static struct text vectors[VECTORS];
static struct client *clients[MAX_FD];
static int poller;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void reserve(struct text *t, size_t more) {
    if (t->length + more + 1 <= t->room) return;
    while (t->length + more + 1 > t->room) t->room = t->room ? t->room * 2 : 4096;
    if (!(t->at = realloc(t->at, t->room))) abort();
}

static void put(struct text *t, const char *from, size_t length) {
    reserve(t, length);
    memcpy(t->at + t->length, from, length);
    t->at[t->length += length] = 0;
}

static void print(struct text *t, const char *format, ...) {
    char line[2048];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    put(t, line, (size_t)length);
}

static void put_chunk(struct text *t, const char *from, size_t length) {
    print(t, "%zx\r\n", length);
    put(t, from, length);
    put(t, "\r\n", 2);
}

static const char *const syllables[] = {" sky", " is", " blue", ",", " be", "cause", " light", " of", " short",
    " wave", "length", " scatters", " more", ".", "\\n", " And", " so", " on", " it", " goes", " –", " näm", "lich"};

static void make_words(void) {
    for (int kind = 0; kind < 2; kind++)
        for (int i = 0; i < WORDS; i++) {
            struct text line = {0};
            const char *said = syllables[(i * 7 + i / 23) % 23];
            print(&line, "{\"model\":\"bench\",\"created_at\":\"2026-01-02T03:%02d:%02d.%09dZ\",", i / 60 % 60, i % 60,
                  (i * 7919 + 104729) % 1000000000);
            if (kind) print(&line, "\"response\":\"%s\",\"done\":false}\n", said);
            else print(&line, "\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"done\":false}\n", said);
            put_chunk(&words[kind][i], line.at, line.length);
            free(line.at);
        }
}

static void make_vectors(void) {
    unsigned state = 12345;
    for (int v = 0; v < VECTORS; v++) {
        vectors[v].length = 0;
        put(&vectors[v], "[", 1);
        for (long i = 0; i < answer_shape.dimension; i++) {
            state = state * 1664525u + 1013904223u;
            float number = ((float)(state >> 8) / (1 << 24) - 0.5f) / sqrtf((float)answer_shape.dimension / 12);
            print(&vectors[v], i ? ",%.8g" : "%.8g", fabsf(number) < 1e-4f ? 1e-4f : number);
        }
        put(&vectors[v], "]", 1);
    }
}

static void respond(struct client *c, const struct text *body) {
    print(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
                   "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n");
    if (body->length < 2048) {
        print(&c->out, "Content-Length: %zu\r\n\r\n", body->length);
        put(&c->out, body->at, body->length);
    } else {
        print(&c->out, "Transfer-Encoding: chunked\r\n\r\n");
        put_chunk(&c->out, body->at, body->length);
        print(&c->out, "0\r\n\r\n");
    }
}

static void print_counts_of_tokens(struct text *t) {
    print(t, "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":5191566416,\"load_duration\":2154458,"
             "\"prompt_eval_count\":26,\"prompt_eval_duration\":383809000,\"eval_count\":%ld,"
             "\"eval_duration\":4799921000}", answer_shape.tokens);
}

static void answer_chat(struct client *c, const char *body, size_t length, bool generate) {
    bool whole = memmem(body, length, "\"stream\":false", 14) || memmem(body, length, "\"stream\": false", 15);
    counts.chat++;
    if (whole) {
        struct text t = {0};
        print(&t, "{\"model\":\"bench\",\"created_at\":\"2026-01-02T03:04:05.123456789Z\",%s",
              generate ? "\"response\":\"" : "\"message\":{\"role\":\"assistant\",\"content\":\"");
        for (long i = 0; i < answer_shape.tokens; i++) print(&t, "%s", syllables[i % 23]);
        print(&t, generate ? "\"," : "\"},");
        print_counts_of_tokens(&t);
        respond(c, &t);
        free(t.at);
        return;
    }
    print(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                   "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\nTransfer-Encoding: chunked\r\n\r\n");
    c->streaming = true;
    c->ended = false;
    c->generate = generate;
    c->next_word = 0;
    c->last_word = answer_shape.tokens;
    c->due = now() + answer_shape.pace_us * 1e-6;
}

/* How many texts stand in "input": one, or those of a list. */
static long count_inputs(const char *body, size_t length) {
    const char *end = body + length, *p = memmem(body, length, "\"input\":", 8);
    if (!p) return 0;
    for (p += 8; p < end && *p == ' ';) p++;
    if (*p != '[') return 1;
    long found = 0;
    for (p++; p < end && *p != ']'; p++) {
        if (*p != '"') continue;
        found++;
        for (p++; p < end && *p != '"'; p++) if (*p == '\\') p++;
    }
    return found;
}

static void answer_embed(struct client *c, const char *body, size_t length) {
    static struct text t;             /* the last answer, which the next request usually wants again */
    static long made_for = -1, made_dimension = -1;
    long texts = count_inputs(body, length);
    counts.embed++;
    if (texts != made_for || answer_shape.dimension != made_dimension) {
        t.length = 0;
        print(&t, "{\"model\":\"bench\",\"embeddings\":[");
        for (long i = 0; i < texts; i++) {
            if (i) put(&t, ",", 1);
            put(&t, vectors[i % VECTORS].at, vectors[i % VECTORS].length);
        }
        print(&t, "],\"total_duration\":14143917,\"load_duration\":1019500,\"prompt_eval_count\":%ld}", texts * 8);
        made_for = texts;
        made_dimension = answer_shape.dimension;
    }
    respond(c, &t);
}

static long setting(const char *path, const char *name, long unset) {
    const char *p = strstr(path, name);
    return p ? atol(p + strlen(name)) : unset;
}

static void answer_control(struct client *c, const char *path) {
    struct text t = {0};
    if (!strncmp(path, "/_set", 5)) {
        long dimension = answer_shape.dimension;
        answer_shape.tokens = setting(path, "tokens=", 16);
        answer_shape.pace_us = setting(path, "pace_us=", 0);
        answer_shape.dimension = setting(path, "dimension=", 768);
        if (dimension != answer_shape.dimension) make_vectors();
        counts.opened = counts.requests = counts.chat = counts.embed = counts.other = 0;
    }
    print(&t, "{\"opened\":%ld,\"open\":%ld,\"requests\":%ld,\"chat\":%ld,\"embed\":%ld,\"other\":%ld}",
          counts.opened, counts.open, counts.requests, counts.chat, counts.embed, counts.other);
    respond(c, &t);
    free(t.at);
}

static void answer(struct client *c, const char *path, const char *body, size_t length) {
    if (!strncmp(path, "/_", 2)) { answer_control(c, path); return; }
    if (!c->known) { c->known = true; counts.opened++; counts.open++; }
    counts.requests++;
    if (!strcmp(path, "/api/chat")) { answer_chat(c, body, length, false); return; }
    if (!strcmp(path, "/api/generate")) { answer_chat(c, body, length, true); return; }
    if (!strcmp(path, "/api/embed")) { answer_embed(c, body, length); return; }
    struct text t = {0};
    counts.other++;
    if (!strcmp(path, "/api/tags"))
        print(&t, "{\"models\":[{\"name\":\"bench:latest\",\"model\":\"bench:latest\",\"size\":1,"
                  "\"digest\":\"%064d\",\"details\":{\"family\":\"llama\"}}]}", 7);
    else if (!strcmp(path, "/api/show"))
        print(&t, "{\"template\":\"{{ .Prompt }}\",\"details\":{\"family\":\"llama\"},\"model_info\":"
                  "{\"general.architecture\":\"llama\",\"llama.context_length\":131072,"
                  "\"llama.embedding_length\":768},\"capabilities\":[\"completion\",\"tools\",\"vision\"]}");
    else print(&t, "{\"version\":\"0.20.0\"}");
    respond(c, &t);
    free(t.at);
}

static void drop(struct client *c) {
    if (c->known) counts.open--;
    clients[c->fd] = NULL;
    close(c->fd);
    free(c->in.at);
    free(c->out.at);
    free(c);
}

static void watch(struct client *c, bool out) {
    if (out == c->watching_out) return;
    c->watching_out = out;
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

/* Take the next request out of what was read; true when there was a whole one. */
static bool take_request(struct client *c) {
    if (!c->request_length) {
        char *end = c->in.length ? memmem(c->in.at, c->in.length, "\r\n\r\n", 4) : NULL;
        if (!end) return false;
        *end = 0;
        const char *length = strcasestr(c->in.at, "\ncontent-length:");
        c->body_at = (size_t)(end + 4 - c->in.at);
        c->request_length = c->body_at + (length ? strtoul(length + 16, NULL, 10) : 0);
        if (c->request_length > c->in.length) reserve(&c->in, c->request_length - c->in.length);
    }
    if (c->in.length < c->request_length) return false;
    char path[256] = "";
    sscanf(c->in.at, "%*s %255s", path);
    c->out.length = c->written = 0;
    answer(c, path, c->in.at + c->body_at, c->request_length - c->body_at);
    c->in.length -= c->request_length;
    memmove(c->in.at, c->in.at + c->request_length, c->in.length);
    c->request_length = 0;
    return true;
}

/* Put the next piece of a stream into `out`; false when it has ended. */
static bool next_piece(struct client *c) {
    if (!c->streaming) return false;
    c->out.length = c->written = 0;
    if (c->next_word < c->last_word) {
        const struct text *word = &words[c->generate][c->next_word++ % WORDS];
        put(&c->out, word->at, word->length);
    } else if (!c->ended) {
        struct text line = {0};
        print(&line, "{\"model\":\"bench\",\"created_at\":\"2026-01-02T03:59:59.123456789Z\",%s,",
              c->generate ? "\"response\":\"\"" : "\"message\":{\"role\":\"assistant\",\"content\":\"\"}");
        print_counts_of_tokens(&line);
        put(&line, "\n", 1);
        put_chunk(&c->out, line.at, line.length);
        free(line.at);
        c->ended = true;
    } else {
        put(&c->out, "0\r\n\r\n", 5);
        c->streaming = false;
    }
    return true;
}

/* Write what can be written now; false when the client is gone. */
static bool write_out(struct client *c) {
    for (int pieces = 0;;) {
        while (c->written < c->out.length) {
            ssize_t n = send(c->fd, c->out.at + c->written, c->out.length - c->written, MSG_NOSIGNAL);
            if (n < 0 && errno == EAGAIN) { watch(c, true); return true; }
            if (n < 0) { drop(c); return false; }
            c->written += (size_t)n;
        }
        if (c->streaming && answer_shape.pace_us && c->next_word < c->last_word) {
            if (now() < c->due) { watch(c, false); return true; }
            c->due += answer_shape.pace_us * 1e-6;
        }
        if (c->streaming && ++pieces > FAIR_SHARE) { watch(c, true); return true; }
        if (!next_piece(c)) break;
    }
    watch(c, false);
    return true;
}

static bool busy(const struct client *c) { return c->streaming || c->written < c->out.length; }

static void read_in(struct client *c) {
    reserve(&c->in, 65536);
    ssize_t n = recv(c->fd, c->in.at + c->in.length, c->in.room - c->in.length - 1, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) { drop(c); return; }
    if (n > 0) c->in.at[c->in.length += (size_t)n] = 0;
    while (!busy(c) && take_request(c))
        if (!write_out(c)) return;
}

static void accept_all(int listener) {
    for (int fd, one = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        clients[fd] = calloc(1, sizeof(struct client));
        clients[fd]->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Milliseconds until a paced stream is due, -1 without one; writes to those that are. */
static int serve_paced(void) {
    double soonest = 0;
    if (!answer_shape.pace_us) return -1;
    for (int fd = 0; fd < MAX_FD; fd++) {
        struct client *c = clients[fd];
        if (!c || !c->streaming || c->watching_out) continue;
        if (now() >= c->due && !write_out(c)) continue;
        if (c->streaming && (!soonest || c->due < soonest)) soonest = c->due;
    }
    return soonest ? (int)fmax(0, ceil((soonest - now()) * 1e3)) : -1;
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    make_words();
    make_vectors();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(count > 1 ? atoi(arguments[1]) : 0)};
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) { perror("stand_in"); return 1; }
    getsockname(listener, (struct sockaddr *)&address, &size);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (struct epoll_event events[64];;) {
        int n = epoll_wait(poller, events, 64, serve_paced());
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) { accept_all(fd); continue; }
            if (clients[fd] && events[i].events & EPOLLOUT && !write_out(clients[fd])) continue;
            if (clients[fd] && !(events[i].events & ~EPOLLOUT)) {
                while (clients[fd] && !busy(clients[fd]) && take_request(clients[fd]) && write_out(clients[fd])) {}
                continue;
            }
            if (clients[fd]) read_in(clients[fd]);
        }
    }
}
